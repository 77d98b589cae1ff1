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


def test_a_window_of_a_ramp_is_a_ramp():
    quarter, square = (0.25, 0.25), (1.0, 1.0)
    ramp = np.broadcast_to(10 * np.arange(16, dtype="uint8")[:, None], (1, 16, 16, 1))
    keys = counter_random.example_keys(0, 0, ids(5))
    made = contrast_views.resized_crop(tf.constant(ramp), keys, 0, quarter, square)
    made = made.numpy()[0, :, :, 0]
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


def window_by_hand(image, area, ratio, top, left):
    """A window resized to the image, bilinear, the border repeated; float64."""
    height, width = image.shape[:2]
    tall = min(np.sqrt(area / ratio * width / height), 1.0)
    wide = min(np.sqrt(area * ratio * height / width), 1.0)
    y = (top * (1 - tall)) * height + tall * (np.arange(height) + 0.5) - 0.5
    x = (left * (1 - wide)) * width + wide * (np.arange(width) + 0.5) - 0.5

    def taken(values, places, axis):
        last = values.shape[axis] - 1
        low = np.floor(places).astype(int)
        part = (places - low).reshape([-1 if k == axis else 1 for k in range(3)])
        ends = (np.take(values, np.clip(low + k, 0, last), axis) for k in (0, 1))
        first, second = ends
        return (1 - part) * first + part * second

    return taken(taken(image.astype(np.float64), y, 0), x, 1)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 1.0), (0.3, 0.3)])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (0.5, 3.0)])
def test_a_window_is_drawn_within_the_bounds_and_resized(scale, ratio):
    images = np.random.default_rng(1).integers(0, 256, (40, 8, 10, 3), "uint8")
    keys = counter_random.example_keys(3, 2, tf.range(40, dtype=tf.int64))
    drawn = [counter_random.uniform(keys, k).numpy().astype(float) for k in range(4)]
    areas = scale[0] + (scale[1] - scale[0]) * drawn[0]
    low, high = np.log(ratio)
    ratios = np.exp(low + (high - low) * drawn[1])
    rows = zip(images, areas, ratios, *drawn[2:], strict=True)
    expected = np.stack([window_by_hand(*row) for row in rows])
    augment = make_augment("resized_crop", crop_scale=scale, crop_ratio=ratio)
    got = augment(images, ids(*range(40)), 3, 2).numpy()
    assert np.abs(got - expected).max() <= 0.51


def test_areas_are_uniform_and_the_logarithms_of_ratios_are():
    """Measured by ramps: their slope is the side of the window."""
    ramp = 4 * np.arange(64, dtype="uint8")
    across = np.broadcast_to(ramp[None, None, :, None], (1000, 64, 64, 1))
    images = np.concatenate([across, across.transpose(0, 2, 1, 3)], -1)
    keys = counter_random.example_keys(0, 0, tf.range(1000, dtype=tf.int64))
    scale, ratio = (0.08, 0.5), (3 / 4, 4 / 3)  # of these no window is cut
    made = contrast_views.resized_crop(tf.constant(images), keys, 0, scale, ratio)
    made = made.numpy().astype(float)
    wide = (made[:, 5, 60, 0] - made[:, 5, 4, 0]) / (4 * 56)
    tall = (made[:, 60, 5, 1] - made[:, 4, 5, 1]) / (4 * 56)
    area, logs = wide * tall, np.log(wide / tall)
    quarters = np.histogram(area, np.linspace(0.08, 0.5, 5))[0]
    assert abs(quarters - 250).max() < 70
    quarters = np.histogram(logs, np.linspace(*np.log(ratio), 5))[0]
    assert abs(quarters - 250).max() < 70


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"crop_scale": (0, 1)}, r"crop_scale must be two numbers in \(0, 1\].* 0,1"),
        ({"crop_scale": (0.5, 1.5)}, "crop_scale must be .* got 0.5,1.5"),
        ({"crop_scale": (0.5,)}, "crop_scale must be two numbers .* got 0.5"),
        ({"crop_ratio": (2, 1)}, "crop_ratio must be two numbers above 0.* got 2,1"),
    ],
)
def test_bounds_that_are_none_are_refused(options, told):
    with pytest.raises(UserError, match=told):
        make_augment("resized_crop", **options)
