"""ATF, both sides: the alpha-divergence of standardized logits."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.atf import ATF
from tf_mskd.methods.atf_teacher import ATFTeacher
from tf_mskd.methods.common import losses

HALVES = np.log([[0.5, 0.5]])
QUARTERS = np.log([[0.75, 0.25]])


def divergence(log_p, log_q, alpha):
    """D_a(p || q) of each row, float64."""
    p, q = np.exp(log_p), np.exp(log_q)
    if alpha == 0:
        return np.sum(q * (log_q - log_p), -1)
    if alpha == 1:
        return np.sum(p * (log_p - log_q), -1)
    return (np.sum(p**alpha * q ** (1 - alpha), -1) - 1) / (alpha * (alpha - 1))


def standardized(z, temperature=1.0):
    z = (z - z.mean(-1, keepdims=True)) / (z.std(-1, keepdims=True) + 1e-7)
    return reference.log_softmax(z / temperature)


def terms_of(method, student=reference.STUDENT, teacher=reference.TEACHER):
    outputs = ({"exit_2": np.array(student)}, {"exit_3": np.array(teacher)})
    return method(*outputs, {"label": reference.LABELS})


# ---- the divergence


@pytest.mark.parametrize(
    "alpha, expected",
    [(0.0, 0.14384104), (0.5, 0.13629669), (1.0, 0.13081204), (2.0, 0.125)],
)
def test_divergence_of_two_coins(alpha, expected):
    got = losses.alpha_divergence(QUARTERS, HALVES, alpha)
    np.testing.assert_allclose(got, [expected], 1e-4, err_msg=f"alpha {alpha}")


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.3, 0.5, 1.0, 2.5])
def test_divergence_agrees_with_the_reference(alpha):
    p, q = np.random.default_rng(0).normal(size=(2, 6, 9))
    expected = divergence(reference.log_softmax(p), reference.log_softmax(q), alpha)
    got = losses.alpha_divergence(p, q, alpha)
    np.testing.assert_allclose(got, expected, 1e-4, err_msg=f"alpha {alpha}")


def test_the_limits_are_approached():
    for alpha in (0.0, 1.0):
        limit = losses.alpha_divergence(reference.TEACHER, reference.STUDENT, alpha)
        for near in (alpha - 5e-5, alpha + 5e-5):  # taken as the limit
            got = losses.alpha_divergence(reference.TEACHER, reference.STUDENT, near)
            np.testing.assert_array_equal(got, limit)
        got = losses.alpha_divergence(
            reference.TEACHER, reference.STUDENT, alpha + 0.01
        )
        np.testing.assert_allclose(got, limit, 0.02)


def test_one_half_is_symmetric_and_the_rest_is_not():
    for alpha, same in ((0.5, True), (0.2, False), (1.0, False)):
        there = losses.alpha_divergence(reference.TEACHER, reference.STUDENT, alpha)
        back = losses.alpha_divergence(reference.STUDENT, reference.TEACHER, alpha)
        assert np.allclose(there, back, 1e-4) == same, alpha


def test_swapping_both_and_alpha_changes_nothing():
    there = losses.alpha_divergence(reference.TEACHER, reference.STUDENT, 0.3)
    back = losses.alpha_divergence(reference.STUDENT, reference.TEACHER, 0.7)
    np.testing.assert_allclose(there, back, 1e-4)


def test_no_class_weight_underflows():
    far = np.array([[200.0, 0.0, -200.0]])
    for alpha in (0.0, 0.5, 1.0, 2.0):
        got = losses.alpha_divergence(far, far, alpha)
        np.testing.assert_allclose(got, [0], atol=1e-6, err_msg=f"alpha {alpha}")


def test_gradient_of_the_divergence():
    weights = np.array([0.3, 1.0, 0.7, 0.2])

    def loss(z):
        log_p, log_q = standardized(reference.TEACHER), standardized(z)
        return weights @ divergence(log_p, log_q, 0.5)

    expected = reference.numeric_gradient(loss, reference.STUDENT)
    z = tf.constant(reference.STUDENT, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(z)
        p, q = losses.standardize(reference.TEACHER), losses.standardize(z)
        total = tf.reduce_sum(weights.astype("f4") * losses.alpha_divergence(p, q, 0.5))
    np.testing.assert_allclose(tape.gradient(total, z), expected, 2e-3, 1e-5)


# ---- standardized logits


def test_standardized_rows_have_mean_0_and_population_deviation_1():
    got = np.array(losses.standardize([[1.0, 3.0], [-7.0, 9.0]]))
    np.testing.assert_allclose(got, [[-1, 1], [-1, 1]], 1e-6)
    got = np.array(losses.standardize(reference.STUDENT))
    np.testing.assert_allclose(got.std(-1), np.ones(4), 1e-5)


def test_equal_logits_give_zero_and_a_finite_gradient():
    z = tf.constant([[2.0, 2.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        got = losses.standardize(z)
    np.testing.assert_array_equal(got, np.zeros((1, 3)))
    assert np.isfinite(tape.gradient(got, z)).all()


# ---- the methods


@pytest.mark.parametrize(
    "alpha, expected",
    [(0.0, 0.20462422), (0.5, 0.19019244), (1.0, 0.18415326), (2.0, 0.19168622)],
)
def test_known_answers_of_the_fixture(alpha, expected):
    got = np.mean(terms_of(ATF(alpha))["atf/exit_2"])
    np.testing.assert_allclose(got, expected, 1e-4, err_msg=f"alpha {alpha}")


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_each_side_takes_the_divergence_from_its_own_end(alpha):
    z, t = np.random.default_rng(1).normal(size=(2, 4, 5))
    log_z, log_t = standardized(z, 2.0), standardized(t, 2.0)
    got = terms_of(ATF(alpha, 2.0), z, t)["atf/exit_2"]
    np.testing.assert_allclose(got, divergence(log_t, log_z, alpha), 1e-4)
    got = terms_of(ATFTeacher(alpha, 2.0), z, t)["atf_teacher/exit_2"]
    np.testing.assert_allclose(got, divergence(log_z, log_t, alpha), 1e-4)


@pytest.mark.parametrize("method, term", [(ATF, "atf"), (ATFTeacher, "atf_teacher")])
def test_positive_affine_maps_of_logits_change_nothing(method, term):
    expected = terms_of(method())[f"{term}/exit_2"]
    student = 7 * reference.STUDENT - np.arange(4)[:, None]
    teacher = 0.2 * reference.TEACHER + 3
    got = terms_of(method(), student, teacher)[f"{term}/exit_2"]
    np.testing.assert_allclose(got, expected, 1e-4, 1e-6)


@pytest.mark.parametrize("method, term", [(ATF, "atf"), (ATFTeacher, "atf_teacher")])
def test_labels_are_learnt_beside_it(method, term):
    terms = terms_of(method())
    assert set(terms) == {"ce/exit_2", f"{term}/exit_2"}
    np.testing.assert_allclose(np.mean(terms["ce/exit_2"]), 2.13784098, 2e-5)


@pytest.mark.parametrize("method, term", [(ATF, "atf"), (ATFTeacher, "atf_teacher")])
def test_last_exits_are_paired(method, term):
    names = [f"exit_{k}" for k in (1, 2, 3)]
    assert method().output_pairs(names, names[:2]) == {"exit_3": ("exit_2",)}
    outputs = dict.fromkeys(names, reference.STUDENT)
    terms = method()(outputs, outputs, {"label": reference.LABELS})
    assert set(terms) == {f"ce/{name}" for name in names} | {f"{term}/exit_3"}


def test_weights_of_both_sides():
    assert ATF().default_weights == {"ce": 1.0, "atf": 9.0}
    assert ATFTeacher().default_weights == {"ce": 1.0, "atf_teacher": 1.0}


def test_a_network_without_exits_is_refused():
    with pytest.raises(UserError, match="exit_k of the teacher"):
        ATF().output_pairs(["exit_1"], [])
