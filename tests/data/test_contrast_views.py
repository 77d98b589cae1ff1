"""Views of contrastive learning: known answers, and pure functions of their keys."""

import numpy as np
import pytest
import tensorflow as tf

from tf_mskd import UserError
from tf_mskd.data import contrast_views, counter_random
from tf_mskd.data.augment import make_augment

NAMES = ("resized_crop", "jitter", "grey", "blur")


def photos(count=6, side=6, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, channels), "uint8")


def ids(*numbers):
    return tf.constant(numbers, tf.int64)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_depends_on_its_own_number_alone(name, channels):
    augment, images = make_augment(name), photos(channels=channels)
    whole = augment(images, ids(*range(6)), 3, 2).numpy()
    alone = augment(images[4:5], ids(4), 3, 2).numpy()
    assert whole.dtype == np.uint8 and whole.shape == images.shape
    np.testing.assert_array_equal(whole[4:5], alone)


@pytest.mark.parametrize("name", ["resized_crop", "jitter", "blur"])
def test_another_view_is_another_image(name):
    augment, images = make_augment(name), photos()
    one, other = (augment(images, ids(*range(6)), 3, v).numpy() for v in (0, 1))
    assert (one != other).any()


@pytest.mark.parametrize("name", ["resized_crop", "blur", "grey"])
def test_a_flat_image_of_grey_stays(name):
    flat = np.full((4, 5, 5, 3), 77, "uint8")
    made = make_augment(name)(flat, ids(0, 1, 2, 3), 0, 0).numpy()
    np.testing.assert_array_equal(made, flat)


def test_a_third_of_a_turn_of_the_hue_makes_red_green():
    red = np.zeros((1, 1, 1, 3), "uint8")
    red[..., 0] = 200
    green = contrast_views.turn_hue(red, tf.constant([1 / 3])).numpy()
    assert green.ravel().tolist() == [0, 200, 0]


def test_the_blur_of_a_point_has_the_weights_of_a_gaussian(monkeypatch):
    monkeypatch.setattr(contrast_views, "DEVIATION", (1.0, 1.0))
    point = np.zeros((1, 5, 5, 1), "uint8")
    point[0, 2, 2] = 255
    keys = counter_random.example_keys(0, 0, ids(0))
    made = contrast_views.blur(point, keys, 0).numpy()[0, 1:4, 1:4, 0]
    weights = np.exp([-0.5, 0, -0.5])
    weights /= weights.sum()
    np.testing.assert_array_equal(made, np.round(255 * np.outer(weights, weights)))


def test_a_window_of_a_ramp_is_a_ramp(monkeypatch):
    monkeypatch.setattr(contrast_views, "AREA", (0.25, 0.25))
    monkeypatch.setattr(contrast_views, "RATIO", (1.0, 1.0))
    ramp = np.broadcast_to(10 * np.arange(16, dtype="uint8")[:, None], (1, 16, 16, 1))
    keys = counter_random.example_keys(0, 0, ids(5))
    made = contrast_views.resized_crop(tf.constant(ramp), keys, 0).numpy()[0, :, :, 0]
    steps = np.diff(made.astype(int), axis=1)
    assert abs(steps).max() == 0 or set(np.unique(steps)) <= {0, 4, 5, 6}


def test_grey_and_jitter_are_as_frequent_as_told():
    keys = counter_random.example_keys(0, 0, tf.range(400, dtype=tf.int64))
    images = tf.tile(photos(1), [400, 1, 1, 1])
    for name, share in (("grey", 0.2), ("jitter", 0.7)):
        made = contrast_views.CONTRAST_VIEWS[name](images, keys, 0)
        changed = np.any(made != images, axis=(1, 2, 3)).mean()
        assert abs(changed - share) < 0.08


@pytest.mark.parametrize("name", NAMES)
def test_label_maps_cannot_follow(name):
    with pytest.raises(UserError, match=f"cannot follow the augmentation '{name}'"):
        make_augment(name).check_maps()
