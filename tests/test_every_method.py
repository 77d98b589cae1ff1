"""Properties of all registered methods, the new ones included."""

import functools
import inspect
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.method_support import (
    ARGUMENTS,
    IMAGES,
    METHODS,
    batch_for,
    every_method,
    fitting,
    teacher_for,
)
from tf_mskd import SGD, Distiller, UserError, create_model
from tf_mskd.methods.common import registry
from tf_mskd.methods.common.create import create_method, method_defaults
from tf_mskd.utils.choices import AUX_HEADS

CLASSES = 10

# Methods that leave out a property, each with the reason.
NOT_ZERO_AT_EQUALITY = {
    "fitnet": "a regressor with random weights stands between the maps",
    "vid": "a Gaussian's log-likelihood, whose minimum is not 0",
    "cc": "two linear views with weights of their own stand between the embeddings",
    "purf": "compares two views of one network, not student and teacher",
    "byot": "its targets are the student's own, and soft labels have an entropy",
    "dbt": "the soft labels have an entropy",
    "eed": "teaches the mean of the vectors, which differ here",
    "tskd": "compares vectors behind adapters",
    "dml": "the teacher's cross-entropy is one of the terms",
    "bilateral": "the teacher's cross-entropy is one of the terms",
    "dats": "the teacher's cross-entropy is one of the terms, and reads another view",
    "sskd_teacher": "its term is a cross-entropy of images, there is no teacher",
    "hsakd_teacher": "its terms are cross-entropies, there is no teacher",
    "ab": "a margin separates the student's map from zero, even the teacher's own",
    "ft": "an untrained translator stands between the maps",
    "paraphraser": "compares a map with its reconstruction in one network",
    "afd": "every block of the student follows every block of the teacher",
    "crd": "a contrast with other examples, between two projections",
}
NOT_BLIND_TO_ORDER = {
    "cc": "compares neighbours in the batch, as the CRD benchmark does",
    "sskd": "of rows of equal rank it keeps the first",
}
TEACHER_LEARNS = {
    "dml": "the peers teach each other",
    "bilateral": "the teacher learns from its student",
    "dats": "the teacher learns labels",
}
# Outputs that a method reads without a gradient into them, name -> prefixes.
STOPPED = {
    "byot": ("embedding_3",),
    "tskd": ("embedding_3",),
    "sskd_teacher": ("exit",),
    "ab": ("exit",),  # no term reaches the exits
    "paraphraser": ("exit", "feature"),  # the map is the target
}
# Student and teacher, of different families; each method takes one pair, by turn.
PAIRS = tuple(itertools.permutations(("resnet10", "vgg8", "wrn_10_1"), 2))


def shapes(widths, rows):
    """Shapes of everything a network of three stages offers, name -> shape."""
    made = {}
    for k, (side, width) in enumerate(zip((8, 4, 2), widths, strict=True), start=1):
        made[f"feature_{k}"] = made[f"preact_{k}"] = (rows, side, side, width)
        made[f"block_{2 * k - 1}"] = made[f"block_{2 * k}"] = (rows, side, side, width)
        made[f"embedding_{k}"] = (rows, widths[-1])
        made[f"exit_{k}"] = (rows, CLASSES)
        made[f"rotation_{k}"] = (rows, 4 * CLASSES)
    made["projection_3"] = (rows, widths[-1])
    made["factor_3"] = (rows, 2, 2, widths[-1] // 2)
    made["reconstruction_3"] = (rows, 2, 2, widths[-1])
    return made


def outputs(seed, widths, rows):
    """Random outputs of a network, as float32 arrays; maps of both signs."""
    rng = np.random.default_rng(seed)
    return {
        name: ((3 if name[:4] == "exit" else 1) * rng.normal(size=shape)).astype("f4")
        for name, shape in shapes(widths, rows).items()
    }


def labels(rows=IMAGES):
    return (7 * np.arange(rows) % CLASSES).astype(np.int32)


class Case:
    """A method with inputs it takes: all exits, or the last where it wants one."""

    def __init__(self, name, same=False):
        self.name = name
        self.method = create_method(name, **ARGUMENTS.get(name, {}))
        rows = IMAGES * self.method.rows_per_image
        student = outputs(1, (4, 6, 8), rows)
        teacher = student if same else outputs(2, (5, 8, 12), rows)
        try:
            self.pairs = self.method.output_pairs(list(student), list(teacher))
        except UserError:
            student = {
                n: v for n, v in student.items() if n not in ("exit_1", "exit_2")
            }
            self.pairs = self.method.output_pairs(list(student), list(teacher))
        reads = [n for n in student if n in self.pairs or n.startswith("exit")]
        self.student = {n: student[n] for n in reads}
        names = itertools.chain.from_iterable(self.pairs.values())
        self.teacher = {n: teacher[n] for n in dict.fromkeys(names)}
        label = labels().repeat(self.method.rows_per_image)
        self.targets = {"label": label, "index": np.arange(rows, dtype=np.int32)}
        if "negatives" in self.method.target_keys:
            count = self.method.num_negatives
            drawn = np.random.default_rng(3).integers(8, 16, (rows, count))
            self.targets["negatives"] = drawn.astype(np.int32)

    def terms(self, student=None, teacher=None, targets=None):
        """The terms; a method with a state starts from the same one each time."""
        eager = tf.executing_eagerly()
        state = [v.numpy() for v in self.method.variables] if eager else []
        terms = self.method(
            self.student if student is None else student,
            self.teacher if teacher is None else teacher,
            self.targets if targets is None else targets,
        )
        if state:
            for variable, value in zip(self.method.variables, state, strict=True):
                variable.assign(value)
        return terms

    def ready(self):
        """The same case with the method's variables made."""
        self.terms()
        return self


def numpy(terms):
    return {name: keras.ops.convert_to_numpy(term) for name, term in terms.items()}


def compare(name, got, expected, rtol=1e-5, atol=1e-5):
    assert set(got) == set(expected), name
    for term in expected:
        message = f"{name} {term}: got {got[term]}, expected {expected[term]}"
        np.testing.assert_allclose(
            got[term], expected[term], rtol, atol, err_msg=message
        )


def test_the_four_core_methods_are_there():
    assert {"ce", "kd", "mskd", "oto"} <= set(METHODS)


@every_method
def test_terms_are_float32_finite_and_per_row_or_scalar(name):
    case = Case(name)
    rows = [(IMAGES,), (IMAGES * case.method.rows_per_image,)]
    for term, value in numpy(case.terms()).items():
        assert value.dtype == np.float32, f"{name} {term}: {value.dtype}"
        assert value.shape in [(), *rows], f"{name} {term}: {value.shape}"
        assert np.isfinite(value).all(), f"{name} {term}: {value}"
        assert term.split("/")[0] in case.method.default_weights, f"{name} {term}"


@every_method
def test_output_pairs_are_the_same_when_nothing_else_is_on_offer(name):
    case = Case(name)
    again = case.method.output_pairs(list(case.student), list(case.teacher))
    assert again == case.pairs, name


@every_method
def test_distillation_terms_are_zero_when_the_student_is_the_teacher(name):
    if name in NOT_ZERO_AT_EQUALITY:
        pytest.skip(NOT_ZERO_AT_EQUALITY[name])
    case = Case(name, same=True)
    logits = case.student.get("exit_3")
    student, teacher = (
        {n: logits if n.startswith("exit") else v for n, v in part.items()}
        for part in (case.student, case.teacher)
    )
    for term, value in numpy(case.terms(student, teacher)).items():
        if term.partition("/")[0] not in ("ce", "vote_ce"):  # which learn from labels
            assert np.abs(value).max() < 1e-5, f"{name} {term}: {value}, not 0"


@every_method
def test_a_permuted_batch_permutes_the_terms(name):
    if name in NOT_BLIND_TO_ORDER:
        pytest.skip(NOT_BLIND_TO_ORDER[name])
    case = Case(name).ready()
    views = case.method.rows_per_image
    images = np.random.default_rng(0).permutation(IMAGES)
    rows = (images[:, None] * views + np.arange(views)).ravel()
    expected = {
        term: value[rows if len(value) == len(rows) else images]
        if value.ndim
        else value
        for term, value in numpy(case.terms()).items()
    }
    parts = (case.student, case.teacher, case.targets)
    moved = [{n: z[rows] for n, z in part.items()} for part in parts]
    compare(name, numpy(case.terms(*moved)), expected)


def agrees_compiled(name, jit_compile):
    """Whether the terms of a compiled call are those of an eager one."""
    case = Case(name).ready()
    expected = numpy(case.terms())
    compiled = tf.function(case.terms, jit_compile=jit_compile)
    got = numpy(compiled())
    compare(f"{name} jit_compile={jit_compile}", got, expected, 1e-4, 1e-4)


@every_method
def test_eager_and_graph_agree(name):
    agrees_compiled(name, jit_compile=False)


def one_a_base_class():
    """All methods; the second and later ones of a base class are slow."""
    seen = set()
    for name in METHODS:
        base = registry._methods[name].__base__
        yield pytest.param(name, marks=[pytest.mark.slow] if base in seen else [])
        seen.add(base)


@pytest.mark.parametrize("name", list(one_a_base_class()))
def test_eager_and_xla_agree(name):
    agrees_compiled(name, jit_compile=True)


@every_method
def test_extreme_logits_stay_finite_and_so_do_their_gradients(name):
    case = Case(name).ready()

    def extreme(part, sign):
        return {
            n: tf.constant(
                sign * (np.sign(z) * 1e4 if n.startswith("exit") else z), "float32"
            )
            for n, z in part.items()
        }

    student, teacher = extreme(case.student, -1.0), extreme(case.teacher, 1.0)
    with tf.GradientTape() as tape:
        tape.watch(student)
        terms = case.terms(student, teacher)
        total = sum(keras.ops.sum(term) for term in terms.values())
    for term, value in numpy(terms).items():
        assert np.isfinite(value).all(), f"{name} {term}: {value}"
    for output, value in tape.gradient(total, student).items():
        finite = value is None or np.isfinite(value).all()
        assert finite, f"{name}: gradient into {output}: {value}"


@every_method
def test_gradients_are_finite_where_both_networks_agree(name):
    case = Case(name, same=True).ready()
    student = {n: tf.constant(z) for n, z in case.student.items()}
    with tf.GradientTape() as tape:
        tape.watch(student)
        terms = case.terms(student)
        total = sum(keras.ops.sum(term) for term in terms.values())
    for output, value in tape.gradient(total, student).items():
        finite = value is None or np.isfinite(value).all()
        assert finite, f"{name}: gradient into {output}: {value}"


@every_method
def test_every_output_read_gets_a_gradient_and_the_teacher_none(name):
    case = Case(name).ready()
    student = {n: tf.constant(z) for n, z in case.student.items()}
    teacher = {n: tf.constant(z) for n, z in case.teacher.items()}
    extra = [v.value for v in case.method.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch([student, teacher])
        terms = case.terms(student, teacher)
        total = sum(keras.ops.sum(term) for term in terms.values())
    to_student, to_teacher, to_extra = tape.gradient(total, [student, teacher, extra])
    for output, value in to_student.items():
        if not output.startswith(STOPPED.get(name, ("none",))):
            assert value is not None and np.any(value), f"{name}: none into {output}"
    for output, value in to_teacher.items():
        got = value is not None and np.any(value)
        learns = name in TEACHER_LEARNS and output.startswith("exit")
        assert got == learns, f"{name}: gradient into {output}: {got}"
    for variable, value in zip(case.method.trainable_variables, to_extra, strict=True):
        assert value is not None, f"{name}: none into {variable.path}"


@every_method
def test_config_round_trip(name):
    case = Case(name).ready()
    config = json.loads(json.dumps(case.method.get_config()))
    again = type(case.method).from_config(config)
    assert again.get_config() == case.method.get_config(), name
    expected = numpy(case.terms())
    variables = [v.numpy() for v in case.method.variables]
    case.method = again
    case.ready()
    for variable, value in zip(again.variables, variables, strict=True):
        variable.assign(value)
    compare(name, numpy(case.terms()), expected)


@every_method
def test_docstring_names_its_source(name):
    text = inspect.getdoc(registry._methods[name])
    assert "Source:" in text, name
    relations = "Departs from the source:", "Reconstruction:", "Source: ours."
    departs = any(relation in text for relation in relations)
    assert departs, f"{name} does not say how it relates to its source"


@every_method
def test_file_registry_and_class_have_one_name(name):
    cls = registry._methods[name]
    assert cls.__module__ == f"tf_mskd.methods.{name}"
    assert cls.__name__.lower() == name.replace("_", "")
    assert cls.registry_name == name


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@every_method
def test_a_distiller_trains_with_it_by_name(name, precision, tiny, digits):
    """A step in each precision; one exit in float32, several in mixed, where it may."""
    head = "dense" if name == "eed" else "linear"  # which compares vectors of one width

    def make(exits):
        method = create_method(name, **ARGUMENTS.get(name, {}))
        numbers = (2,) if exits == "last" else (1, 2)
        keras.config.set_dtype_policy(precision)
        student = tiny(numbers, aux_heads=method.aux_heads, exit_head=head)
        keras.config.set_dtype_policy("float32")
        teacher = None
        if method.needs_teacher:
            teacher = teacher_for(method, numbers)
        return Distiller(student, teacher, method)

    order = ("last", "all") if precision == "float32" else ("all", "last")
    distiller = fitting(name, make, order)
    student, teacher, method = distiller.student, distiller.teacher, distiller.method
    distiller.compile(SGD(1e-3), jit_compile=False)
    before = [v.numpy() for v in student.trainable_variables]
    fixed = [] if teacher is None else [v.numpy() for v in teacher.variables]
    images, label = digits[0][:IMAGES], digits[1][:IMAGES]
    logs = distiller.train_step(batch_for(method, images, label))
    assert np.isfinite(logs["loss"]), f"{name} {distiller.exits}: {logs}"
    after = [v.numpy() for v in student.trainable_variables]
    moved = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert any(moved), f"{name} {distiller.exits}: nothing moved"
    if teacher is not None and not method.trains_teacher:
        for old, now in zip(fixed, teacher.variables, strict=True):
            np.testing.assert_array_equal(old, now.numpy(), err_msg=name)


@functools.cache
def network(family, exits, heads):
    """A narrow network of one family, built once for all methods."""
    return create_model(family, CLASSES, exits=exits, width=1 / 16, aux_heads=heads)


@every_method
def test_it_is_built_for_networks_of_two_families(name):
    """Adapters come from shapes; VGG and ResNet have four stages, a WRN has three."""
    student, teacher = PAIRS[METHODS.index(name) % len(PAIRS)]
    if name == "oto" and teacher == "wrn_10_1":  # an exit for each of the student's
        student, teacher = teacher, student

    def make(exits):
        method = create_method(name, **ARGUMENTS.get(name, {}))
        taught_by = None
        if method.needs_teacher:
            taught_by = network(teacher, "all", AUX_HEADS)
        return Distiller(network(student, exits, method.aux_heads), taught_by, method)

    for order in (("last", "all"), ("all", "last")):
        assert fitting(name, make, order).term_names, name


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UserError, match="Unknown method 'mskt'; .* 'mskd'"):
        create_method("mskt")
    with pytest.raises(UserError, match="method 'kd' 'temprature'; .* 'temperature'"):
        create_method("kd", temprature=3.0)
    with pytest.raises(UserError, match="Unknown argument of method 'ce' 'preset'"):
        create_method("ce", preset="hsakd")


def test_defaults_of_a_constructor():
    assert method_defaults("oto") == {
        "preset": "repdistiller",
        "temperature": None,
        "exit_map": "",
    }


def test_a_taken_name_is_refused():
    class Other(keras.layers.Layer):
        pass

    with pytest.raises(UserError, match="'mskd' is taken by MSKD"):
        registry.register("mskd")(Other)
    assert registry._methods["mskd"].__name__ == "MSKD"
