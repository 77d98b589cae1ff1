"""RKD: distances and angles against known answers and the formula."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.rkd import RKD, angles, distances

STUDENT = reference.fill(0.5, [4, 6])
TEACHER = reference.fill(1.7, [4, 8])
TRIANGLES = [[0, 0], [1, 0], [0, 1]], [[0, 0], [3, 0], [0, 4]]


def huber(x):
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


def formula(student, teacher):
    """(L_D, L_A) with loops over pairs and triples."""

    def relations(v):
        v = np.asarray(v, np.float64)
        size = len(v)
        d = np.array([[np.linalg.norm(a - b) for b in v] for a in v])
        c = np.zeros((size, size, size))
        for i, j, k in np.ndindex(c.shape):
            if i != j and i != k:
                c[i, j, k] = (v[j] - v[i]) @ (v[k] - v[i]) / (d[i, j] * d[i, k])
        return d / d[d > 0].mean(), c

    pairs = zip(relations(student), relations(teacher), strict=True)
    return tuple(huber(s - t).mean() for s, t in pairs)


def rkd(student, teacher):
    student, teacher = (np.asarray(x, np.float32) for x in (student, teacher))
    exits = {"exit_3": np.zeros((len(student), 5), np.float32)}
    labels = {"label": np.zeros(len(student), np.int32)}
    terms = RKD()({**exits, "embedding_3": student}, {"embedding_4": teacher}, labels)
    names = ("rkd_distance/embedding_3", "rkd_angle/embedding_3")
    assert set(terms) == {"ce/exit_3", *names}
    return tuple(float(terms[name]) for name in names)


@pytest.mark.parametrize(
    "pair, expected, total",
    [
        ((STUDENT, TEACHER), (0.19473943, 0.16785518), 13.26124476),
        (TRIANGLES, (0.00348125, 0.00074448), 0.12425532),
    ],
)
def test_known_answers(pair, expected, total):
    got = rkd(*pair)
    np.testing.assert_allclose(got, expected, 2e-5)
    weights = RKD().default_weights
    weighted = weights["rkd_distance"] * got[0] + weights["rkd_angle"] * got[1]
    np.testing.assert_allclose(weighted, total, 2e-5)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_random_embeddings_match_the_formula(scale):
    rng = np.random.default_rng(0)
    student = scale * rng.normal(size=(8, 16)) ** 3
    teacher = rng.normal(size=(8, 24)) + 5
    np.testing.assert_allclose(rkd(student, teacher), formula(student, teacher), 1e-4)


def test_motions_and_scales_of_either_side_change_nothing():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    expected = rkd(STUDENT, TEACHER)
    np.testing.assert_allclose(rkd(3 * STUDENT @ turn + 2, TEACHER), expected, 1e-4)
    np.testing.assert_allclose(rkd(STUDENT, 0.2 * TEACHER - 1), expected, 1e-4)
    np.testing.assert_allclose(rkd(2 * TEACHER + 5, TEACHER), (0, 0), atol=1e-9)


def test_an_outlier_counts_linearly():
    """h is |x| - 1/2 beyond 1: one example of nine far from the others."""
    student = np.append(np.arange(8.0) / 10, 100.0)[:, None]
    teacher = np.arange(9.0)[:, None]
    gap = distances(tf.constant(student, tf.float32)) - distances(
        tf.constant(teacher, tf.float32)
    )
    assert np.abs(gap).max() > 1.5
    got = rkd(student, teacher)
    np.testing.assert_allclose(got, formula(student, teacher), 1e-4, 1e-9)


def test_duplicates_stay_finite():
    v = tf.constant([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [0.0, 3.0]])
    for student in (v, tf.zeros((4, 2))):
        with tf.GradientTape() as tape:
            tape.watch(student)
            terms = RKD().relate(student, tf.constant(TEACHER, tf.float32))
            total = sum(terms.values())
        gradient = tape.gradient(total, student).numpy()
        assert np.isfinite(gradient).all(), gradient
        assert np.abs(gradient).max() < 10, gradient


def test_the_angle_at_a_point_with_itself_is_zero():
    cosines = angles(tf.constant(TRIANGLES[1], tf.float32)).numpy()
    assert cosines[0, 0, 1] == 0 and cosines[0, 1, 0] == 0
    np.testing.assert_allclose(cosines[1, 0, 2], 0.6, 1e-6)  # 3-4-5 triangle


def test_refuses_a_batch_of_one():
    with pytest.raises(UserError, match="'rkd' compares examples .* batches of 2"):
        rkd(STUDENT[:1], TEACHER[:1])
