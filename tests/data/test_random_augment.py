"""RandAugment and TrivialAugment against Pillow, and the distribution of draws."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from tf_mskd.data import augment as aug
from tf_mskd.data import counter_random as random
from tf_mskd.data import random_augment
from tf_mskd.data.image_ops import FILL
from tf_mskd.data.sources import load_source
from tf_mskd.utils.errors import UserError

IDS = np.arange(64, dtype=np.int64)
NAMES = (  # of the operations, in the order of the draws
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    *("Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize"),
    *("AutoContrast", "Equalize"),
)
GEOMETRIC = NAMES[1:6]
NEVER_SIGNED = ("Posterize", "Solarize")


@pytest.fixture
def images(photographs):
    return photographs


def affine(image, matrix):
    return image.transform(image.size, Image.AFFINE, matrix, fillcolor=(FILL,) * 3)


PILLOW = {
    "Identity": lambda image, m: image,
    "ShearX": lambda image, m: affine(image, (1, m, 0, 0, 1, 0)),
    "ShearY": lambda image, m: affine(image, (1, 0, 0, m, 1, 0)),
    "TranslateX": lambda image, m: affine(image, (1, 0, m, 0, 1, 0)),
    "TranslateY": lambda image, m: affine(image, (1, 0, 0, 0, 1, m)),
    "Rotate": lambda image, m: image.rotate(m, fillcolor=(FILL,) * 3),
    "Brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(1 + m),
    "Color": lambda image, m: ImageEnhance.Color(image).enhance(1 + m),
    "Contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(1 + m),
    "Sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + m),
    "Posterize": lambda image, m: ImageOps.posterize(image, int(m)),
    "Solarize": lambda image, m: ImageOps.solarize(image, m),
    "AutoContrast": lambda image, m: ImageOps.autocontrast(image),
    "Equalize": lambda image, m: ImageOps.equalize(image),
}


def of_trivial(width, height):
    """Magnitudes of torchvision's wide space, 31 of each operation."""
    blend, shift = np.linspace(0, 0.99, 31), np.linspace(0, 32, 31)
    return {
        **dict.fromkeys(("ShearX", "ShearY"), blend),
        **dict.fromkeys(("TranslateX", "TranslateY"), shift),
        "Rotate": np.linspace(0, 135, 31),
        **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), blend),
        "Posterize": 8 - np.round(np.arange(31) / (30 / 6)),
        "Solarize": np.linspace(255, 0, 31),
    }


def of_rand(width, height):
    """Magnitudes of the paper's space, at 0, 1, ..., 10."""
    blend = np.linspace(0, 0.9, 11)
    return {
        **dict.fromkeys(("ShearX", "ShearY"), np.linspace(0, 0.3, 11)),
        "TranslateX": np.linspace(0, 150 / 331 * width, 11),
        "TranslateY": np.linspace(0, 150 / 331 * height, 11),
        "Rotate": np.linspace(0, 30, 11),
        **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), blend),
        "Posterize": 8 - np.round(4 * np.arange(11) / 10),
        "Solarize": np.linspace(256, 0, 11),
    }


def by_pillow(image, name, strengths, step, sign):
    magnitude = strengths[name][step] if name in strengths else 0.0
    magnitude *= 1 if name in NEVER_SIGNED else sign
    return np.asarray(PILLOW[name](Image.fromarray(image), magnitude))


def check_alike(got, expected, names):
    """Exact but for rare pixels where 32-bit magnitudes tip a rounding."""
    gap = np.abs(np.stack(expected).astype(int) - got)
    for name in NAMES:
        rows = gap[np.asarray(names) == name]
        assert len(rows), f"{name} is not drawn"
        tolerance = 256 if name in GEOMETRIC else 1
        message = f"{name}: {rows.max()}, {np.mean(rows > 0)}"
        assert rows.max() <= tolerance and np.mean(rows > 0) < 2e-3, message


def repeated(images, times):
    return np.tile(images, (times, 1, 1, 1)), np.arange(64 * times, dtype=np.int64)


def test_trivialaugment_is_one_operation_of_pillow(images):
    many, ids = repeated(images, 8)
    keys = random.example_keys(5, 2, ids)
    kinds = [NAMES[kind] for kind in random.integers(keys, 0, 14).numpy()]
    bins = random.integers(keys, 1, 31).numpy()
    signs = np.where(random.uniform(keys, 2).numpy() < 0.5, -1, 1)
    strengths = of_trivial(40, 32)
    rows = zip(many, kinds, bins, signs, strict=True)
    expected = [by_pillow(image, name, strengths, k, s) for image, name, k, s in rows]
    got = aug.make_augment("trivialaugment")(many, ids, 5, 2).numpy()
    check_alike(got, expected, kinds)


@pytest.mark.parametrize("magnitude", [0, 3, 9, 10])
def test_randaugment_of_one_operation_is_that_of_pillow(images, magnitude):
    many, ids = repeated(images, 3)
    keys = random.example_keys(5, 2, ids)
    kinds = [NAMES[kind] for kind in random.integers(keys, 0, 14).numpy()]
    signs = np.where(random.uniform(keys, 1).numpy() < 0.5, -1, 1)
    strengths = of_rand(40, 32)
    rows = zip(many, kinds, signs, strict=True)
    expected = [by_pillow(x, name, strengths, magnitude, s) for x, name, s in rows]
    options = {"randaugment_operations": 1, "randaugment_magnitude": magnitude}
    got = aug.make_augment("randaugment", **options)(many, ids, 5, 2).numpy()
    check_alike(got, expected, kinds)


def test_operations_of_randaugment_follow_each_other(images):
    keys = random.example_keys(5, 2, IDS)
    expected = tf.constant(images)
    for slot in range(3):
        expected = random_augment.randaugment(expected, keys, 2 * slot, 1, 7.0)
    options = {"randaugment_operations": 3, "randaugment_magnitude": 7.0}
    got = aug.make_augment("randaugment", **options)(images, IDS, 5, 2)
    np.testing.assert_array_equal(got, expected)
    usual = aug.make_augment("randaugment")(images, IDS, 5, 2)
    expected = random_augment.randaugment(tf.constant(images), keys, 0, 2, 9.0)
    np.testing.assert_array_equal(usual, expected)


@pytest.mark.parametrize("seed", [0, 3])
def test_operations_strengths_and_signs_are_uniform_and_independent(seed):
    keys = random.example_keys(seed, 1, np.arange(14_000, dtype=np.int64))
    kinds = random.integers(keys, 0, 14).numpy()
    bins = random.integers(keys, 1, 31).numpy()
    signs = (random.uniform(keys, 2) < 0.5).numpy()
    for drawn, count in ((kinds, 14), (bins, 31), (signs, 2), (31 * kinds + bins, 434)):
        counts = np.bincount(drawn, minlength=count)
        expected = 14_000 / count
        assert (
            np.sum((counts - expected) ** 2 / expected) < count + 5 * (2 * count) ** 0.5
        )
    assert np.abs(np.corrcoef([kinds, bins, signs]) - np.eye(3)).max() < 0.03


@pytest.mark.parametrize("names", ["randaugment", "trivialaugment", "crop,randaugment"])
def test_a_view_depends_on_the_example_and_not_on_its_batch(images, names):
    augment = aug.make_augment(names)
    shapes = (
        tf.TensorSpec([None, 32, 40, 3], tf.uint8),
        tf.TensorSpec([None], tf.int64),
    )
    graph = tf.function(lambda x, ids: augment(x, ids, 5, 2), input_signature=shapes)
    whole = graph(images, IDS).numpy()
    some = np.array([40, 3, 17])
    np.testing.assert_array_equal(whole[some], graph(images[some], IDS[some]))
    np.testing.assert_array_equal(whole, augment(images, IDS, 5, 2))
    assert whole.dtype == np.uint8 and whole.shape == images.shape
    for seed, view in ((5, 3), (6, 2)):
        assert not np.array_equal(whole, augment(images, IDS, seed, view))
    assert augment(images[:0], IDS[:0], 5, 2).shape == (0, 32, 40, 3)


@pytest.mark.parametrize("name", ["randaugment", "trivialaugment"])
def test_grey_images_come_out_as_the_same_in_colour(name):
    digits = load_source("digits").train.images[:64]
    got = aug.make_augment(name)(digits, IDS, 0, 0).numpy()
    colour = aug.make_augment(name)(np.repeat(digits, 3, -1), IDS, 0, 0).numpy()
    np.testing.assert_array_equal(colour[..., :1], got)
    assert not np.array_equal(got, digits)


def test_mistakes_are_refused():
    two_channels = np.zeros((1, 8, 8, 2), np.uint8)
    for name in ("randaugment", "trivialaugment"):
        with pytest.raises(UserError, match=f"{name} needs images of 1 or 3 channels"):
            aug.make_augment(name)(two_channels, IDS[:1], 0, 0)
        with pytest.raises(UserError, match=f"cannot follow the augmentation '{name}'"):
            aug.make_augment(name).check_maps()
    with pytest.raises(UserError, match=r"operations must be in \[1, 8\], got 9"):
        aug.make_augment("randaugment", randaugment_operations=9)
    with pytest.raises(UserError, match="operations must be whole, got 1.5"):
        aug.make_augment("randaugment", randaugment_operations=1.5)
    with pytest.raises(UserError, match=r"magnitude must be in \[0, 10\], got 11"):
        aug.make_augment("randaugment", randaugment_magnitude=11)
