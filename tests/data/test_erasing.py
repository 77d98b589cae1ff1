"""Random erasing: rectangles by hand, their distribution, noise, statelessness."""

import numpy as np
import pytest
import tensorflow as tf

from tf_mskd.data import augment as aug
from tf_mskd.data import counter_random as random
from tf_mskd.data.erasing import random_erase
from tf_mskd.utils.errors import UserError


def rectangle(chances, height, width):
    """The rectangle of the released code, with the first size of those that fits."""
    if chances[0] >= 0.5:
        return None
    for area, ratio in zip(chances[3:15:2], chances[4:15:2], strict=True):
        area = (0.02 + 0.38 * area) * height * width
        ratio = 0.3 + (1 / 0.3 - 0.3) * ratio
        tall, wide = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if tall < height and wide < width:
            top = int(chances[1] * (height - tall + 1))
            left = int(chances[2] * (width - wide + 1))
            return slice(top, top + tall), slice(left, left + wide)
    return None


def chances_of(count, seed=3, view=1):
    keys = random.example_keys(seed, view, np.arange(count, dtype=np.int64))
    return keys, np.stack([random.uniform(keys, k).numpy() for k in range(16)], 1)


@pytest.mark.parametrize("shape", [(8, 8, 1), (10, 24, 3)])
def test_black_rectangles_are_those_of_the_released_code(shape):
    images = np.random.default_rng(0).integers(1, 256, (300, *shape), np.uint8)
    _, chances = chances_of(300)
    expected = images.copy()
    for image, row in zip(expected, chances.astype(np.float64), strict=True):
        box = rectangle(row, *shape[:2])
        if box:
            image[box] = 0
    augment = aug.make_augment("erase", erase_fill="black")
    got = augment(images, np.arange(300), 3, 1).numpy()
    np.testing.assert_array_equal(got, expected)


def test_half_of_the_images_lose_two_to_forty_percent_anywhere():
    ones = tf.ones([4000, 20, 20, 1], tf.uint8)
    keys, _ = chances_of(4000)
    erased = 1 - random_erase(ones, keys, 0, "black").numpy()[..., 0]
    parts = erased.mean((1, 2))
    assert abs(np.mean(parts > 0) - 0.5) < 0.03
    some = parts[parts > 0]
    assert some.min() >= 0.01 and some.max() <= 0.43 and abs(some.mean() - 0.2) < 0.02
    assert (erased.mean(0) > 0.002).all()  # corners too
    tall = erased.any(2).sum(1)[parts > 0] / erased.any(1).sum(1)[parts > 0]
    assert np.mean(tall > 1) > 0.6  # the ratio, not its logarithm, is uniform


def test_noise_is_uniform_and_stays_within_the_rectangle():
    images = np.zeros((2000, 9, 7, 3), np.uint8)
    keys, _ = chances_of(2000)
    black = random_erase(tf.constant(images + 1), keys, 0, "black").numpy() == 0
    noisy = aug.make_augment("erase")(images, np.arange(2000), 3, 1).numpy()
    assert not noisy[~black].any()
    counts = np.bincount(noisy[black], minlength=256)
    expected = black.sum() / 256
    assert np.sum((counts - expected) ** 2 / expected) < 255 + 5 * np.sqrt(510)


def test_noise_of_a_key_has_no_pattern():
    keys, _ = chances_of(64)
    noise = random.noise(keys, 15, 1001).numpy().astype(float)
    assert noise.shape == (64, 1001)
    assert abs(noise.mean() - 127.5) < 1.5
    assert np.abs(np.corrcoef(noise) - np.eye(64)).max() < 0.16
    assert np.abs(np.corrcoef(noise.T[:64]) - np.eye(64)).max() < 0.6
    shifted = np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]
    assert abs(shifted) < 0.02


@pytest.mark.parametrize("fill", ["noise", "black"])
def test_a_view_depends_on_the_example_and_not_on_its_batch(fill):
    images = np.random.default_rng(1).integers(0, 256, (64, 12, 9, 3), np.uint8)
    augment, ids = aug.make_augment("flip,erase", erase_fill=fill), np.arange(64)
    whole = tf.function(augment)(images, ids, 5, tf.constant(2, tf.int64)).numpy()
    some = np.array([40, 3, 17])
    np.testing.assert_array_equal(whole[some], augment(images[some], ids[some], 5, 2))
    for seed, view in ((5, 3), (6, 2)):
        assert not np.array_equal(whole, augment(images, ids, seed, view))


def test_label_maps_stay_under_an_erased_rectangle():
    maps = np.random.default_rng(1).integers(0, 3, (16, 6, 6)).astype(np.int32)
    augment = aug.make_augment("erase")
    augment.check_maps()
    moved = augment.maps(tf.constant(maps), np.arange(16), 7, 3)
    np.testing.assert_array_equal(moved, maps)


def test_an_unknown_fill_is_refused():
    with pytest.raises(UserError, match="Unknown erase_fill 'blak'.* 'black'"):
        aug.make_augment("erase", erase_fill="blak")
