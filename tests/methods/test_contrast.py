"""Which image a rotated one shows: cosines, parents and the rows that are kept."""

import numpy as np
import pytest
import tensorflow as tf

from tf_mskd.methods.common import contrast


def test_three_rotated_rows_show_one_image():
    assert contrast.parents(6).numpy().tolist() == [0, 0, 0, 1, 1, 1]


def test_cosines_worked_by_hand_and_zero_at_a_zero_vector():
    got = contrast.cosines(
        [[3.0, 4.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]
    )
    np.testing.assert_allclose(got, [[0.6, 0.8, 1.0], [0.0, 0.0, 0.0]], 1e-6)


def kept_by_loops(scores, truth, fraction):
    """The rule of `best_ranked`, sorted in Python."""
    ranks = [int(np.sum(s > s[t])) for s, t in zip(scores, truth, strict=True)]
    right = [row for row, rank in enumerate(ranks) if rank == 0]
    wrong = sorted((rank, row) for row, rank in enumerate(ranks) if rank > 0)
    count = int(np.floor(fraction * len(wrong)))
    kept = set(right) | {row for _, row in wrong[:count]}
    return [row in kept for row in range(len(ranks))]


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.75, 1.0])
def test_kept_rows_are_those_of_a_plain_sort(fraction):
    rng = np.random.default_rng(0)
    for rows, columns in ((1, 2), (6, 3), (30, 4)):
        scores = rng.normal(size=(rows, columns)).astype("float32")
        truth = rng.integers(0, columns, rows)
        got = contrast.best_ranked(tf.constant(scores), truth, fraction)
        assert got.numpy().tolist() == kept_by_loops(scores, truth, fraction), (
            rows,
            columns,
            fraction,
        )


def test_all_correct_rows_are_kept_at_a_fraction_of_nothing():
    scores = tf.constant(np.eye(3, dtype="float32"))
    assert contrast.best_ranked(scores, [0, 1, 2], 0.0).numpy().all()
    assert not contrast.best_ranked(scores, [1, 2, 0], 0.0).numpy().any()


def test_mean_of_kept_rows_is_zero_where_none_is_kept():
    values = tf.constant([1.0, 2.0, 6.0])
    assert float(contrast.mean_of(values, [True, False, True])) == 3.5
    assert float(contrast.mean_of(values, [False] * 3)) == 0.0
