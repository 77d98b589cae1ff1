"""PURF: the penalty on unit vectors, the noisy rows."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import SGD, Distiller, UserError
from tf_mskd.methods.purf import PURF


def penalty(clean, noisy):
    """||nrm(v) - nrm(v~)||^2 of each row, float64."""
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (clean, noisy)]
    return np.sum((unit[0] - unit[1]) ** 2, axis=1)


def terms_of(clean, noisy, method=None):
    def rows(a, b):
        return np.stack([a, b], axis=1).reshape(-1, a.shape[-1])

    student = {
        "exit_2": rows(reference.STUDENT, 9 * reference.STUDENT + 1),
        "embedding_2": rows(clean, noisy),
    }
    targets = {"label": reference.LABELS.repeat(2)}
    return (method or PURF())(student, {}, targets)


def test_known_answer_of_the_fixture():
    terms = terms_of(reference.fill(0.5, [4, 6]), reference.fill(0.6, [4, 6]))
    got = np.mean(terms["purf/embedding_2"])
    np.testing.assert_allclose(got, 0.01013774, 1e-4)


def test_labels_are_learnt_from_the_clean_rows():
    v = reference.fill(0.5, [4, 6])
    got = np.mean(terms_of(v, v)["ce/exit_2"])
    np.testing.assert_allclose(got, 2.13784098, 2e-5)


def test_the_penalty_agrees_with_the_reference():
    clean, noisy = np.random.default_rng(0).normal(size=(2, 4, 6))
    got = terms_of(clean, noisy)["purf/embedding_2"]
    np.testing.assert_allclose(got, penalty(clean, noisy), 2e-5)


def test_the_penalty_lies_between_0_and_4_and_knows_no_scale():
    v = np.random.default_rng(0).normal(size=(4, 6))
    for noisy, expected in ((v, 0), (5 * v, 0), (-0.1 * v, 4)):
        got = terms_of(v, noisy)["purf/embedding_2"]
        np.testing.assert_allclose(got, np.full(4, expected), 1e-5, 1e-10)


def test_both_branches_learn():
    v = tf.constant(np.random.default_rng(0).normal(size=(8, 6)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(v)
        logits = {"exit_2": reference.STUDENT.repeat(2, 0), "embedding_2": v}
        terms = PURF()(logits, {}, {"label": reference.LABELS.repeat(2)})
        loss = tf.reduce_sum(terms["purf/embedding_2"])
    gradient = tape.gradient(loss, v).numpy()
    assert (np.abs(gradient).max(1) > 0).all(), gradient


def test_a_vector_of_zeros_keeps_the_gradient_finite():
    v = tf.zeros((8, 6))
    with tf.GradientTape() as tape:
        tape.watch(v)
        logits = {"exit_2": reference.STUDENT.repeat(2, 0), "embedding_2": v}
        terms = PURF()(logits, {}, {"label": reference.LABELS.repeat(2)})
        loss = tf.reduce_sum(terms["purf/embedding_2"])
    assert loss == 0 and np.isfinite(tape.gradient(loss, v)).all()


@pytest.mark.parametrize("arguments", [{}, {"noise": 0.5}, {"pixel_std": 0.5}])
def test_odd_rows_carry_noise_in_units_of_the_pixels_deviation(arguments, digits):
    images, labels = digits[0][:500], digits[1][:500]
    method = PURF(**arguments)
    rows, targets = method.augment(images, {"label": labels}, None, None)
    rows = np.array(rows)
    assert rows.shape == (1000, 8, 8, 1) and rows.dtype == np.float32
    np.testing.assert_array_equal(rows[::2], images)
    np.testing.assert_array_equal(targets["label"], labels.repeat(2))
    noise = rows[1::2] - rows[::2]
    expected = 255 * method.noise * method.pixel_std
    np.testing.assert_allclose(noise.std(), expected, 0.02)
    np.testing.assert_allclose(noise.mean(), 0, atol=0.03 * expected)


def test_noise_of_0_leaves_the_rows_alike(digits):
    batch = (digits[0][:4], {"label": digits[1][:4]})
    rows, _ = PURF(noise=0.0).augment(*batch, None, None)
    np.testing.assert_array_equal(rows[::2], rows[1::2])


def test_noise_goes_on_from_a_tracked_state(digits):
    method, batch = PURF(), (digits[0][:4], {"label": digits[1][:4]}, None, None)
    (state,) = method.variables
    assert state.path.endswith("seed_generator_state")
    first = method.augment(*batch)[0]
    before = state.numpy()
    second = method.augment(*batch)[0]
    assert np.any(np.array(first) != np.array(second))
    state.assign(before)
    np.testing.assert_array_equal(method.augment(*batch)[0], second)


@pytest.mark.run
def test_a_compiled_run_on_digits_smooths_the_teacher(tiny, digits):
    images, labels = digits[0][:64], digits[1][:64]
    method, weights = PURF(noise=1.0), {"purf": 9.0}
    distiller = Distiller(tiny((2,)), method=method, term_weights=weights)
    distiller.compile(SGD(0.05), jit_compile=False)
    logs = distiller.fit(images, labels, epochs=6, batch_size=32, verbose=0).history
    gap = logs["purf/embedding_2"]
    assert gap[-1] < 0.7 * gap[0], gap


def test_the_last_embedding_is_read_and_has_no_target():
    names = ["exit_1", "embedding_1", "exit_2", "embedding_2"]
    assert PURF().output_pairs(names, []) == {"embedding_2": ()}
    assert not PURF.needs_teacher


def test_a_network_without_embedding_is_refused():
    with pytest.raises(UserError, match="embedding_k of the student, which makes only"):
        PURF().output_pairs(["exit_1"], [])
