"""The hash behind every augmentation: known values, uniformity, independence."""

import numpy as np
import pytest
import tensorflow as tf

from tf_mskd.data import counter_random as random

MASK = 2**64 - 1


def reference_mix(z):
    """The SplitMix64 finaliser in Python integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def keys(count, seed=1, view=0):
    return random.example_keys(seed, view, tf.range(count, dtype=tf.int64))


@pytest.mark.parametrize(("seed", "view", "index"), [(0, 0, 0), (7, 3, 49_999)])
def test_keys_and_draws_match_plain_integers(seed, view, index):
    golden = 0x9E3779B97F4A7C15
    key = reference_mix((seed + golden) & MASK)
    key = reference_mix((key + view) & MASK)
    key = reference_mix((key + index) & MASK)
    got = random.example_keys(seed, view, tf.constant([index], tf.int64))
    assert got.numpy().tolist() == [key]
    bits = reference_mix((key + 6 * golden) & MASK)
    assert random.uniform(got, 5).numpy()[0] == np.float32((bits >> 40) / 2**24)
    assert random.integers(got, 5, 9).numpy()[0] == (bits >> 32) * 9 >> 32


def test_splitmix_known_answer():
    # First output of SplitMix64 started at 0: the finaliser of the golden constant.
    assert reference_mix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_integers_are_uniform_over_examples_views_and_draws():
    count = 90_000
    many_views = tf.concat([keys(1, view=view) for view in range(2_000)], axis=0)
    samples = [
        random.integers(keys(count), 0, 9),
        random.integers(keys(count), 1, 9),
        random.integers(keys(count, seed=2**40), 0, 9),
        random.integers(many_views, 0, 9),
    ]
    for sample in samples:
        observed = np.bincount(sample.numpy(), minlength=9)
        expected = len(sample) / 9
        chi_square = np.sum((observed - expected) ** 2 / expected)
        assert len(observed) == 9 and chi_square < 26.1  # 8 degrees, p = 0.001


def test_uniform_fills_the_unit_interval():
    values = np.sort(random.uniform(keys(100_000), 0).numpy())
    assert values[0] >= 0 and values[-1] < 1
    distance = np.abs(values - (np.arange(100_000) + 0.5) / 100_000).max()
    assert distance < 1.95 / np.sqrt(100_000)  # Kolmogorov-Smirnov, p = 0.001


def test_draws_views_and_seeds_are_uncorrelated():
    base = random.uniform(keys(50_000), 0).numpy()
    others = [
        random.uniform(keys(50_000), 1),
        random.uniform(keys(50_000, view=1), 0),
        random.uniform(keys(50_000, seed=2), 0),
        np.roll(base, 1),
    ]
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 3.3 / np.sqrt(50_000)


def test_negative_seed_is_one_of_the_seeds():
    assert np.array_equal(keys(3, seed=-1), keys(3, seed=2**64 - 1))
