"""PKT: probabilities of neighbours against known answers and the formula."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.pkt import PKT, neighbours

STUDENT = reference.fill(0.5, [4, 6])
TEACHER = reference.fill(1.7, [4, 8])


def formula(student, teacher):
    """mean_ij P_t ln((P_t + e) / (P_s + e)) of the rows of K = (1 + cosine) / 2."""

    def rows(v):
        v = np.asarray(v, np.float64)
        u = v / (np.linalg.norm(v, axis=1, keepdims=True) + 1e-7)
        k = (u @ u.T + 1) / 2
        return k / k.sum(1, keepdims=True)

    s, t = rows(student), rows(teacher)
    return np.mean(t * np.log((t + 1e-7) / (s + 1e-7)))


def pkt(student, teacher):
    student, teacher = (np.asarray(x, np.float32) for x in (student, teacher))
    exits = {"exit_3": np.zeros((len(student), 5), np.float32)}
    labels = {"label": np.zeros(len(student), np.int32)}
    terms = PKT()({**exits, "embedding_3": student}, {"embedding_4": teacher}, labels)
    assert set(terms) == {"ce/exit_3", "pkt/embedding_3"}
    return float(terms["pkt/embedding_3"])


def test_known_answers():
    np.testing.assert_allclose(pkt(STUDENT, TEACHER), 0.06753409, 1e-4)
    by_hand = pkt([[1, 0], [0, 1]], [[1, 0], [1, 0]])
    np.testing.assert_allclose(by_hand, 0.02944574, 1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_random_embeddings_match_the_formula(seed):
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(8, 16)), rng.normal(size=(8, 24))
    np.testing.assert_allclose(pkt(student, teacher), formula(student, teacher), 1e-4)


def test_the_length_of_a_vector_changes_nothing():
    lengths = np.array([[0.1], [2.0], [30.0], [5.0]])
    expected = pkt(STUDENT, TEACHER)
    np.testing.assert_allclose(pkt(lengths * STUDENT, TEACHER), expected, 1e-4)
    np.testing.assert_allclose(pkt(STUDENT, lengths * TEACHER), expected, 1e-4)


def test_equal_embeddings_give_zero():
    np.testing.assert_allclose(pkt(TEACHER, TEACHER), 0.0, atol=1e-7)


def test_zero_and_opposite_vectors_stay_finite():
    v = tf.constant([[0.0, 0.0], [1e3, 0.0], [-1e3, 0.0], [0.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(v)
        (term,) = PKT().relate(v, tf.constant(TEACHER, tf.float32)).values()
    gradient = tape.gradient(term, v).numpy()
    assert np.isfinite(term) and np.isfinite(gradient).all(), (term, gradient)
    assert np.abs(gradient[0]).max() == 0, f"{gradient[0]} at a zero vector"
    assert neighbours(v)[1, 2] == 0


def test_refuses_a_batch_of_one():
    with pytest.raises(UserError, match="'pkt' compares examples .* batches of 2"):
        pkt(STUDENT[:1], TEACHER[:1])


def test_reads_the_deepest_embeddings():
    pairs = PKT().output_pairs(
        ["embedding_2", "embedding_4", "exit_4"], ["embedding_3"]
    )
    assert pairs == {"embedding_4": ("embedding_3",)}
