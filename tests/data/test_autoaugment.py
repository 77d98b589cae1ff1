"""Every AutoAugment operation against Pillow, and the policy's bookkeeping."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from sklearn import datasets

from tf_mskd.data import counter_random as random
from tf_mskd.data import image_ops
from tf_mskd.data.autoaugment import CIFAR10_POLICY, OPERATIONS, autoaugment
from tf_mskd.data.sources import load_source

GREY = (image_ops.FILL,) * 3


@pytest.fixture(scope="module")
def images():
    """Tiles of two real photographs and a flat image, uint8 [17, 32, 40, 3]."""
    tiles = []
    for photo in datasets.load_sample_images().images:
        for top, left in ((y, x) for y in (0, 150) for x in (0, 200, 400, 500)):
            tiles.append(photo[top : top + 96 : 3, left : left + 120 : 3])
    flat = np.full_like(tiles[0], 77)
    return np.stack([*tiles, flat])


def affine(image, matrix):
    return image.transform(image.size, Image.AFFINE, matrix, fillcolor=GREY)


PILLOW = {
    "ShearX": lambda image, m: affine(image, (1, m, 0, 0, 1, 0)),
    "ShearY": lambda image, m: affine(image, (1, 0, 0, m, 1, 0)),
    "TranslateX": lambda image, m: affine(image, (1, 0, m, 0, 1, 0)),
    "TranslateY": lambda image, m: affine(image, (1, 0, 0, 0, 1, m)),
    "Rotate": lambda image, m: image.rotate(m, fillcolor=GREY),
    "AutoContrast": lambda image, m: ImageOps.autocontrast(image),
    "Invert": lambda image, m: ImageOps.invert(image),
    "Equalize": lambda image, m: ImageOps.equalize(image),
    "Solarize": lambda image, m: ImageOps.solarize(image, int(m)),
    "Posterize": lambda image, m: ImageOps.posterize(image, int(m)),
    "Contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(m),
    "Color": lambda image, m: ImageEnhance.Color(image).enhance(m),
    "Brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(m),
    "Sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(m),
}


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_operation_equals_pillow(name, images):
    operation, to_magnitude, is_signed = OPERATIONS[name]
    for level in range(1, 10):
        sign = -1 if is_signed and level % 2 else 1
        magnitude = float(sign * to_magnitude(level))
        if name == "Posterize" and magnitude < 1:
            continue  # Pillow takes 1 to 8 bits
        got = operation(tf.constant(images), tf.fill([len(images)], magnitude))
        expected = [
            np.asarray(PILLOW[name](Image.fromarray(image), magnitude))
            for image in images
        ]
        difference = np.abs(np.stack(expected).astype(int) - got.numpy())
        # Exact but for rare pixels where 32-bit magnitudes tip a rounding.
        tolerance = 256 if name in ("ShearX", "ShearY", "Rotate") else 1
        message = f"{name} {magnitude}: {difference.max()}"
        assert difference.max() <= tolerance, message
        assert np.mean(difference > 0) < 1e-3, message


def test_magnitudes_are_taken_per_image(images):
    magnitude = tf.constant([0.3, -2.0, 1.0])
    for name in sorted(OPERATIONS):
        values = tf.abs(magnitude) if not OPERATIONS[name][2] else magnitude
        if name == "Posterize":
            values = tf.constant([1.0, 4.0, 8.0])
        together = OPERATIONS[name][0](tf.constant(images[:3]), values)
        for k in range(3):
            alone = OPERATIONS[name][0](
                tf.constant(images[k : k + 1]), values[k : k + 1]
            )
            assert np.array_equal(together[k], alone[0]), name


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_operation_takes_grey_images_and_empty_groups(name):
    digits = load_source("digits").train.images[:5]
    operation, to_magnitude, _ = OPERATIONS[name]
    magnitude = tf.fill([5], float(to_magnitude(4)))
    got = operation(tf.constant(digits), magnitude).numpy()
    assert got.shape == digits.shape and got.dtype == np.uint8
    as_rgb = operation(tf.constant(np.repeat(digits, 3, axis=-1)), magnitude)
    assert np.array_equal(as_rgb[..., :1], got)
    assert operation(tf.constant(digits[:0]), magnitude[:0]).shape == (0, 8, 8, 1)


def test_policy_has_25_pairs_of_known_operations_in_range():
    assert len(CIFAR10_POLICY) == 25
    for sub_policy in CIFAR10_POLICY:
        assert len(sub_policy) == 2
        for name, probability, level in sub_policy:
            assert name in OPERATIONS
            assert 0 <= probability <= 1 and 0 <= level <= 9


def test_released_magnitudes():
    by_hand = {"Rotate": 6, "TranslateX": 2, "Posterize": 4, "Solarize": 205}
    for name, expected in by_hand.items():
        assert OPERATIONS[name][1](2) == expected
    assert OPERATIONS["Posterize"][1](7) == 2
    assert OPERATIONS["Color"][1](5) == pytest.approx(1.0)
    assert OPERATIONS["ShearY"][1](8) == pytest.approx(0.24)


def test_a_policy_of_certain_operations_is_their_composition(images):
    policy = ((("Invert", 1.0, 0), ("Solarize", 1.0, 5)),)
    keys = random.example_keys(0, 0, tf.range(len(images), dtype=tf.int64))
    got = autoaugment(tf.constant(images), keys, 0, policy)
    inverted = 255 - images
    expected = np.where(inverted < 128, inverted, 255 - inverted)
    assert np.array_equal(got, expected)
    never = ((("Invert", 0.0, 0), ("Solarize", 0.0, 5)),)
    assert np.array_equal(autoaugment(tf.constant(images), keys, 0, never), images)


def test_probabilities_and_signs_are_as_stated():
    count = 8000
    keys = random.example_keys(1, 0, tf.range(count, dtype=tf.int64))
    policy = ((("TranslateX", 0.25, 1), ("Invert", 0.0, 0)),)
    ramp = np.arange(5, dtype=np.uint8)[None, None, :, None]
    images = tf.broadcast_to(ramp, [count, 1, 5, 1])
    got = autoaugment(images, keys, 0, policy).numpy()[:, 0, 2, 0]
    share = np.bincount(got, minlength=4)[1:4] / count
    assert np.allclose(share, [0.125, 0.75, 0.125], atol=0.016)
