"""DKD: the two parts of a softened divergence, and their warm-up."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import SGD, Distiller
from tf_mskd.methods.common.create import create_method

LABEL = {"label": np.array([0, 1])}
SOFT = np.array([[2.0, -1.0, 0.5], [0.1, 3.0, -2.0]])
HARD = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]])


def decoupled(labels, target, z, temperature):
    """T^2 * KL of [p_y, 1 - p_y] and of the other classes' shares, each [B]."""
    rows = []
    for y, t, s in zip(labels, target, z, strict=True):
        p, q = (reference.softmax(v / temperature) for v in (t, s))
        binary = np.array([[v[y], 1 - v[y]] for v in (p, q)])
        shares = [np.delete(v, y) / np.delete(v, y).sum() for v in (p, q)]
        rows.append([_kl(*binary), _kl(*shares)])
    return temperature**2 * np.array(rows).T


def _kl(p, q):
    return np.sum(p * (np.log(p) - np.log(q)))


def parts(teacher, student, label, **arguments):
    """TCKD and NCKD of one exit, each float32 [B]."""
    method = create_method("dkd", **arguments)
    terms = method({"exit_1": student}, {"exit_1": teacher}, {"label": label})
    return [np.asarray(terms[f"dkd_{part}/exit_1"]) for part in ("target", "others")]


def test_known_answers():
    target, others = parts(reference.TEACHER, reference.STUDENT, reference.LABELS)
    got = target.mean(), others.mean(), target.mean() + 8 * others.mean()
    np.testing.assert_allclose(got, (0.22466734, 0.46799087, 3.96859431), 2e-5)
    target, others = parts(SOFT, HARD, LABEL["label"])
    got = target.mean(), others.mean(), target.mean() + 8 * others.mean()
    np.testing.assert_allclose(got, (0.42730738, 0.21030807, 2.10977192), 2e-5)
    p, q = np.log([[0.5, 0.3, 0.2]]), np.log([[0.4, 0.4, 0.2]])
    got = np.ravel(parts(p, q, np.array([0]), temperature=1.0))
    np.testing.assert_allclose(got, (0.020411, 0.00971231), 2e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_terms_are_the_formula_on_random_logits(temperature):
    rng = np.random.default_rng(0)
    teacher, student = 3 * rng.normal(size=(2, 6, 7))
    label = rng.integers(0, 7, 6)
    got = parts(teacher, student, label, temperature=temperature)
    expected = decoupled(label, teacher, student, temperature)
    np.testing.assert_allclose(got, expected, 2e-5, 1e-5)


def test_both_parts_make_up_kd():
    rng = np.random.default_rng(1)
    teacher, student = 3 * rng.normal(size=(2, 6, 7))
    label = rng.integers(0, 7, 6)
    target, others = parts(teacher, student, label)
    rest = 1 - reference.softmax(teacher / 4)[np.arange(6), label]
    expected = reference.softened_kl(teacher, student, 4.0)
    np.testing.assert_allclose(target + rest * others, expected, 2e-5)


def test_a_constant_on_all_logits_of_a_row_changes_nothing():
    expected = parts(SOFT, HARD, LABEL["label"])
    shift = np.array([[3.0], [-7.0]])
    got = parts(SOFT + shift, HARD - shift, LABEL["label"])
    np.testing.assert_allclose(got, expected, 1e-4, 1e-5)


def test_a_teacher_sure_of_the_label_still_teaches_the_other_classes():
    teacher = np.array([[60.0, 2.0, 0.0]])  # 1 - t_y rounds to 0 in float32
    student, label = np.array([[50.0, 0.0, 2.0]]), np.array([0])
    target, others = parts(teacher, student, label, temperature=1.0)
    expected = _kl(*(reference.softmax(np.array(z)) for z in ([2.0, 0.0], [0.0, 2.0])))
    np.testing.assert_allclose(others, [expected], 2e-5)
    assert abs(target[0]) < 1e-6


@pytest.mark.parametrize("gap", [-40.0, -12.0, -8.0, 0.0, 8.0, 12.0, 40.0])
def test_the_target_term_keeps_its_digits_where_a_probability_is_near_0_or_1(gap):
    """Against float64 formulas that do not round: p_y = 1 / (1 + e^-odds)."""
    student = np.array([[gap, 0.5, -0.5], [gap, 1.0, 0.25]])
    teacher = student + np.array([[1.5, 0.0, 0.25], [-1.0, 0.5, 0.0]])
    student, teacher = np.float32(student), np.float32(teacher)
    got, _ = parts(teacher, student, np.array([0, 0]), temperature=1.0)
    logs = []
    for z in (np.float64(teacher), np.float64(student)):
        odds = z[:, 0] - np.logaddexp(z[:, 1], z[:, 2])
        logs.append((-np.logaddexp(0, -odds), -np.logaddexp(0, odds)))
    expected = sum(np.exp(t) * (t - s) for t, s in zip(*logs, strict=True))
    np.testing.assert_allclose(got, expected, 2e-5, 1e-30)


def test_gradients_are_those_of_the_formula():
    rng = np.random.default_rng(2)
    teacher, student = 2 * rng.normal(size=(2, 3, 4))
    label = np.array([1, 0, 3])

    def total(z):
        target, others = decoupled(label, teacher, z, 4.0)
        return target.sum() + 8 * others.sum()

    method = create_method("dkd")
    z = tf.constant(student, "float32")
    with tf.GradientTape() as tape:
        tape.watch(z)
        terms = method({"exit_1": z}, {"exit_1": teacher}, {"label": label})
        loss = tf.reduce_sum(
            terms["dkd_target/exit_1"] + 8 * terms["dkd_others/exit_1"]
        )
    expected = reference.numeric_gradient(total, student)
    np.testing.assert_allclose(tape.gradient(loss, z), expected, 1e-4, 1e-5)


def test_every_exit_learns_from_the_teachers_last():
    method = create_method("dkd")
    pairs = method.output_pairs(["exit_1", "exit_2"], ["exit_1", "exit_4"])
    assert pairs == {"exit_1": ("exit_4",), "exit_2": ("exit_4",)}


def test_weights_warm_up_linearly():
    method = create_method("dkd")
    factors = [method.schedule(e, 240, [])["dkd_others"] for e in (0, 9, 19, 20, 239)]
    assert factors == [0.05, 0.5, 1.0, 1.0, 1.0]
    assert "ce" not in method.schedule(0, 240, [])
    at_once = create_method("dkd", warmup_epochs=0)
    assert at_once.schedule(0, 240, []) == {"dkd_target": 1.0, "dkd_others": 1.0}


@pytest.mark.run
def test_fit_trains_with_the_warm_up(tiny, digits):
    images, labels = (part[:32] for part in digits)
    method = create_method("dkd", warmup_epochs=4)
    distiller = Distiller(tiny((4,)), tiny((4,), 1 / 8), method)
    distiller.compile(SGD(0.0), jit_compile=False)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(distiller.term_weights["dkd_others"].numpy()))

    distiller.fit(images, labels, 32, epochs=5, verbose=0, callbacks=[Watch()])
    np.testing.assert_allclose(seen, [2.0, 4.0, 6.0, 8.0, 8.0])
