"""SP: matrices of similarity against known answers and the formula."""

import numpy as np
import pytest

from tests import reference
from tf_mskd import Distiller, UserError
from tf_mskd.methods.sp import SP

STUDENT = reference.fill(0.3, [4, 4, 4, 3])
TEACHER = reference.fill(0.9, [4, 2, 2, 6])


def formula(student, teacher):
    """1/B^2 sum_ij (G_t - G_s)_ij^2, G = Q Q^T with rows divided by their length."""

    def gram(x):
        rows = np.asarray(x, np.float64).reshape(len(x), -1)
        g = rows @ rows.T
        return g / np.linalg.norm(g, axis=1, keepdims=True)

    return np.sum((gram(teacher) - gram(student)) ** 2) / len(student) ** 2


def sp(student, teacher):
    student, teacher = (np.asarray(x, np.float32) for x in (student, teacher))
    exits = {"exit_3": np.zeros((len(student), 5), np.float32)}
    labels = {"label": np.zeros(len(student), np.int32)}
    terms = SP()({**exits, "feature_3": student}, {"feature_4": teacher}, labels)
    assert set(terms) == {"ce/exit_3", "sp/feature_3"}
    return float(terms["sp/feature_3"])


def test_known_answers():
    np.testing.assert_allclose(sp(STUDENT, TEACHER), 0.00987565, 2e-5)
    rows = [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]
    by_hand = sp(*(np.array(x).reshape(2, 1, 1, 2) for x in rows))
    np.testing.assert_allclose(by_hand, 1 - 0.5**0.5, 2e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_random_maps_match_the_formula(seed):
    rng = np.random.default_rng(seed)
    student = rng.normal(size=(8, 4, 2, 5))
    teacher = rng.normal(size=(8, 3, 3, 7)) + 0.3
    np.testing.assert_allclose(sp(student, teacher), formula(student, teacher), 1e-4)


def test_only_one_scale_for_all_examples_changes_nothing():
    np.testing.assert_allclose(sp(7 * STUDENT, TEACHER), sp(STUDENT, TEACHER), 1e-4)
    one = STUDENT * np.array([3.0, 1, 1, 1]).reshape(4, 1, 1, 1)
    assert abs(sp(one, TEACHER) - sp(STUDENT, TEACHER)) > 1e-4


def test_maps_of_zeros_stay_finite():
    value = sp(np.zeros_like(STUDENT), TEACHER)
    np.testing.assert_allclose(value, 0.25, 1e-5)  # rows of length 1 against 0


def test_refuses_a_batch_of_one():
    with pytest.raises(UserError, match="'sp' compares examples .* batches of 2"):
        sp(STUDENT[:1], TEACHER[:1])


def test_a_last_part_batch_of_one_counts_nothing(tiny, digits):
    images, labels = digits[0][:9], digits[1][:9]
    student, teacher = tiny((4,)), tiny((4,), 1 / 8)
    distiller = Distiller(student, teacher, SP())
    distiller.compile("sgd", jit_compile=False)
    logs = distiller.fit(images, labels, batch_size=8, epochs=1, verbose=0).history
    assert np.isfinite(logs["loss"]).all(), logs


def test_refuses_networks_without_maps():
    with pytest.raises(UserError, match="reads feature_k of the student"):
        SP().output_pairs(["exit_1"], ["feature_1"])
    with pytest.raises(UserError, match="reads feature_k of the teacher"):
        SP().output_pairs(["feature_1"], ["exit_1"])
