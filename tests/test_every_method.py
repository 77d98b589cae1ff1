"""Properties of all registered methods, the new ones included."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import Distiller, UserError, registry

METHODS = registry.available_methods()
CLASSES = 10
every_method = pytest.mark.parametrize("name", METHODS)


def exits(seed, rows=8, count=3):
    """Logits of three exits, as float32 arrays."""
    rng = np.random.default_rng(seed)
    draw = 3 * rng.normal(size=(count, rows, CLASSES)).astype(np.float32)
    return {f"exit_{k + 1}": draw[k] for k in range(count)}


def labels(rows=8):
    return (7 * np.arange(rows) % CLASSES).astype(np.int32)


class Case:
    """A method with inputs it takes: all exits, or the last where it wants one."""

    def __init__(self, name):
        self.name, self.method = name, registry.create_method(name)
        self.student, self.teacher = exits(1), exits(2)
        try:
            self.method.teacher_reads(list(self.student), list(self.teacher))
        except UserError:
            self.student = {"exit_3": self.student["exit_3"]}

    def terms(self, student=None, teacher=None, label=None):
        student = self.student if student is None else student
        reads = self.method.teacher_reads(list(student), list(self.teacher))
        teacher = {n: (teacher or self.teacher)[n] for n in reads}
        targets = {"label": labels() if label is None else label}
        if "index" in self.method.target_keys:
            targets["index"] = np.arange(len(targets["label"]))
        return self.method(student, teacher, targets)


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
def test_terms_are_float32_finite_and_per_example_or_scalar(name):
    case = Case(name)
    for term, value in numpy(case.terms()).items():
        assert value.dtype == np.float32, f"{name} {term}: {value.dtype}"
        assert value.shape in [(), (8,)], f"{name} {term}: {value.shape}"
        assert np.isfinite(value).all(), f"{name} {term}: {value}"
        assert term.split("/")[0] in case.method.default_weights, f"{name} {term}"


@every_method
def test_distillation_terms_are_zero_when_the_student_is_the_teacher(name):
    case = Case(name)
    same = np.float32(2 * reference.fill(1, [8, CLASSES]))
    student, teacher = dict.fromkeys(case.student, same), dict.fromkeys(exits(0), same)
    for term, value in numpy(case.terms(student, teacher)).items():
        if not term.startswith("ce/"):
            assert np.abs(value).max() < 1e-5, f"{name} {term}: {value}, not 0"


@every_method
def test_a_permuted_batch_permutes_the_terms(name):
    case = Case(name)
    order = np.random.default_rng(0).permutation(8)
    expected = {
        term: value[order] if value.ndim else value
        for term, value in numpy(case.terms()).items()
    }
    student = {n: z[order] for n, z in case.student.items()}
    teacher = {n: z[order] for n, z in case.teacher.items()}
    compare(name, numpy(case.terms(student, teacher, labels()[order])), expected)


@every_method
def test_eager_graph_and_xla_agree(name):
    case = Case(name)
    expected = numpy(case.terms())
    for jit_compile in (False, True):
        compiled = tf.function(case.terms, jit_compile=jit_compile)
        compare(f"{name} jit_compile={jit_compile}", numpy(compiled()), expected)


@every_method
def test_extreme_logits_stay_finite_and_so_do_their_gradients(name):
    case = Case(name)
    extreme = {n: np.sign(z) * np.float32(1e4) for n, z in case.teacher.items()}
    student = {n: tf.constant(-extreme[n]) for n in case.student}
    with tf.GradientTape() as tape:
        tape.watch(student)
        terms = case.terms(student, extreme)
        total = sum(keras.ops.sum(term) for term in terms.values())
    for term, value in numpy(terms).items():
        assert np.isfinite(value).all(), f"{name} {term}: {value}"
    for output, value in tape.gradient(total, student).items():
        assert np.isfinite(value).all(), f"{name}: gradient into {output}: {value}"


@every_method
def test_every_exit_gets_a_gradient_and_the_teacher_none(name):
    case = Case(name)
    student = {n: tf.constant(z) for n, z in case.student.items()}
    teacher = {n: tf.constant(z) for n, z in case.teacher.items()}
    with tf.GradientTape() as tape:
        tape.watch([student, teacher])
        terms = case.terms(student, teacher)
        total = sum(keras.ops.sum(term) for term in terms.values())
    to_student, to_teacher = tape.gradient(total, [student, teacher])
    for output, value in to_student.items():
        assert value is not None and np.any(value), f"{name}: none into {output}"
    for output, value in to_teacher.items():
        assert value is None or not np.any(value), f"{name}: some into {output}"


@every_method
def test_config_round_trip(name):
    case = Case(name)
    saved = keras.saving.serialize_keras_object(case.method.get_config())
    config = keras.saving.deserialize_keras_object(saved)
    again = type(case.method).from_config(config)
    assert again.get_config() == case.method.get_config(), name
    expected = numpy(case.terms())
    case.method = again
    compare(name, numpy(case.terms()), expected)


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("kd", {"temperature": 2.0}),
        ("mskd", {"preset": "byot", "temperature": 5.0}),
        ("oto", {"preset": "hsakd", "exit_map": "1:2,2:2"}),
    ],
)
def test_config_keeps_what_was_given(name, arguments):
    method = registry.create_method(name, **arguments)
    config = type(method).from_config(method.get_config()).get_config()
    got = {key: config[key] for key in arguments}
    assert got == arguments, f"{name}: {got}, expected {arguments}"


@every_method
def test_docstring_names_its_source(name):
    text = inspect.getdoc(registry._methods[name])
    assert "Source:" in text, name
    departs = "Departs from the source:" in text or "Reconstruction:" in text
    assert departs, f"{name} does not say how it relates to its source"


@every_method
def test_file_registry_and_class_have_one_name(name):
    cls = registry._methods[name]
    assert cls.__module__ == f"tf_mskd.methods.{name}"
    assert cls.__name__.lower() == name
    assert cls.registry_name == name


@every_method
def test_a_distiller_takes_it_by_name(name, tiny):
    case = Case(name)
    student = tiny((1, 2) if len(case.student) > 1 else (2,))
    teacher = tiny((1, 2)) if case.method.needs_teacher else None
    distiller = Distiller(student, teacher, name)
    assert {t.split("/")[0] for t in distiller.term_names} <= set(
        case.method.default_weights
    ), name


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UserError, match="Unknown method 'mskt'; .* 'mskd'"):
        registry.create_method("mskt")
    with pytest.raises(UserError, match="method 'kd' 'temprature'; .* 'temperature'"):
        registry.create_method("kd", temprature=3.0)
    with pytest.raises(UserError, match="Unknown argument of method 'ce' 'preset'"):
        registry.create_method("ce", preset="hsakd")


def test_defaults_of_a_constructor():
    assert registry.method_defaults("oto") == {
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
