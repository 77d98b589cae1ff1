"""BYOT: own deepest exit, softened outputs and vectors behind adapters."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.reference import fill
from tf_mskd import SGD, Distiller
from tf_mskd.methods.byot import BYOT

VECTORS = {f"embedding_{k}": fill(0.2 * k, [4, 6]) for k in (1, 2, 3, 4)}
STUDENT = {**reference.STUDENT_EXITS, **VECTORS}
TARGETS = {"label": reference.LABELS}
WEIGHTS = {1: fill(0.6, [6, 6]), 2: fill(1.6, [6, 6]), 3: fill(2.6, [6, 6])}


def reading(method, student):
    """The outputs the method reads, float32."""
    names = method.output_pairs(list(student), [])
    return {name: np.float32(student[name]) for name in names}


def terms_of(method, student=STUDENT, targets=TARGETS):
    """The terms with the fixture's adapters and no biases."""
    read = reading(method, student)
    if not method.built:
        method(read, {}, targets)
        for name, adapter in method.adapters.items():
            rows, columns = adapter.kernel.shape
            kernel = WEIGHTS[int(name[-1])][:rows, :columns]
            adapter.set_weights([kernel, np.zeros(columns)])
    return {name: np.array(v) for name, v in method(read, {}, targets).items()}


def loss(method, terms):
    weight = {n: method.default_weights[n.split("/")[0]] for n in terms}
    return sum(weight[name] * term.mean() for name, term in terms.items())


def soft(target, logits, temperature):
    p = reference.softmax(np.asarray(target) / temperature)
    return -np.sum(p * reference.log_softmax(np.asarray(logits) / temperature), -1)


def expected(student, labels, temperature=3.0, features=(1, 2), last=4):
    """The paper's sum, in its own weights."""
    deepest = student[f"exit_{last}"]
    total = reference.cross_entropy(labels, deepest).mean()
    for k in range(1, last):
        logits = student[f"exit_{k}"]
        total += 0.7 * reference.cross_entropy(labels, logits).mean()
        total += 0.3 * soft(deepest, logits, temperature).mean()
    for k in features:
        gap = student[f"embedding_{k}"] @ WEIGHTS[k] - student[f"embedding_{last}"]
        total += 0.03 * np.sqrt(np.sum(gap**2))
    return total


def test_loss_of_the_fixture():
    method = BYOT()
    np.testing.assert_allclose(loss(method, terms_of(method)), 8.16113878, 2e-5)


@pytest.mark.parametrize(
    "skip, features", [("before_last", (1, 2)), ("first", (2, 3)), ("none", (1, 2, 3))]
)
def test_loss_is_the_formula_on_random_outputs(skip, features):
    rng = np.random.default_rng(1)
    student = {n: 2 * rng.normal(size=(8, v.shape[1])) for n, v in STUDENT.items()}
    labels = rng.integers(0, 5, 8)
    method = BYOT(temperature=2.0, skip=skip)
    terms = terms_of(method, student, {"label": labels})
    known = expected(student, labels, 2.0, features)
    np.testing.assert_allclose(loss(method, terms), known, 2e-5)
    assert {f"embedding_{k}" for k in features} == set(method.adapters)


def test_the_deepest_exit_learns_from_labels_with_weight_one():
    terms = terms_of(BYOT())
    known = reference.cross_entropy(reference.LABELS, STUDENT["exit_4"])
    np.testing.assert_allclose(terms["ce/exit_4"], known, 2e-5)
    np.testing.assert_array_equal(terms["byot/exit_4"], terms["ce/exit_4"])


def test_identical_exits_leave_the_entropy():
    same = {n: STUDENT["exit_4"] if n[:4] == "exit" else v for n, v in STUDENT.items()}
    known = soft(STUDENT["exit_4"], STUDENT["exit_4"], 3.0)
    np.testing.assert_allclose(terms_of(BYOT(), same)["byot/exit_1"], known, 2e-5)


def test_the_feature_term_is_a_root_over_the_whole_batch():
    once = terms_of(BYOT())["byot_feature/embedding_1"]
    twice = {n: np.concatenate([v, v]) for n, v in STUDENT.items()}
    targets = {"label": np.tile(reference.LABELS, 2)}
    again = terms_of(BYOT(), twice, targets)["byot_feature/embedding_1"]
    assert once.shape == ()
    np.testing.assert_allclose(again, np.sqrt(2) * once, 2e-5)


def test_vectors_of_other_widths_are_mapped_to_the_deepest_one():
    student = {**STUDENT, "embedding_1": fill(0.1, [4, 3])}
    method = BYOT()
    terms_of(method, student)
    assert tuple(method.adapters["embedding_1"].kernel.shape) == (3, 6)


def test_equal_vectors_have_finite_gradients():
    method = BYOT()
    student = {n: tf.zeros_like(v) for n, v in reading(method, STUDENT).items()}
    method(student, {}, TARGETS)
    with tf.GradientTape() as tape:
        tape.watch(student)
        term = method(student, {}, TARGETS)["byot_feature/embedding_1"]
    gradient = tape.gradient(term, student["embedding_1"])
    np.testing.assert_array_equal(gradient, np.zeros((4, 6)))


def test_two_exits_leave_no_feature_term_by_default():
    names = ["exit_2", "exit_4", "embedding_2", "embedding_4"]
    assert BYOT().output_pairs(names, []) == {"exit_2": (), "exit_4": ()}
    assert list(BYOT(skip="none").output_pairs(names, [])) == names


def test_a_phase_without_the_deepest_exit_learns_labels_alone(tiny, digits):
    student = tiny((1, 2, 4))
    distiller = Distiller(student, method="byot", phases="progressive")
    distiller.compile(SGD(0.05), jit_compile=False)
    targets = digits[1][:8]
    first = distiller.train_step((digits[0][:8], targets))
    exit_1 = student(digits[0][:8])["exit_1"]
    assert exit_1.shape == (8, 10) and np.isfinite(first["ce/exit_1"])
    assert float(first["byot/exit_1"]) == 0.0
    np.testing.assert_allclose(first["loss"], 0.7 * first["ce/exit_1"], 1e-5)
    distiller.set_phase(3)
    distiller.reset_metrics()
    assert float(distiller.train_step((digits[0][:8], targets))["byot/exit_1"]) > 0


def test_adapters_learn_with_the_student(tiny, digits):
    distiller = Distiller(tiny((1, 2, 4)), method="byot")
    distiller.compile(SGD(0.05), jit_compile=False)
    before = [v.numpy() for v in distiller.method.trainable_variables]
    distiller.train_step((digits[0][:8], digits[1][:8]))
    after = distiller.method.trainable_variables
    assert len(before) == 2
    for old, new in zip(before, after, strict=True):
        assert np.abs(old - keras.ops.convert_to_numpy(new)).max() > 0, new.path
