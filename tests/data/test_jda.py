"""Joint data augmentation: each operation against Pillow, chances and statelessness."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from tf_mskd.data import augment as aug
from tf_mskd.data import counter_random as random
from tf_mskd.data import jda
from tf_mskd.data.image_ops import FILL
from tf_mskd.data.sources import load_source
from tf_mskd.utils.errors import UserError

GREY = (FILL,) * 3
IDS = np.arange(64, dtype=np.int64)


@pytest.fixture
def images(photographs):
    return photographs


def affine(image, matrix):
    return image.transform(image.size, Image.AFFINE, matrix, fillcolor=GREY)


# The fourteen operations in their order, in Pillow; sign is -1 or 1.
PILLOW = {
    "autocontrast": lambda image, sign: ImageOps.autocontrast(image),
    "contrast": lambda image, sign: ImageEnhance.Contrast(image).enhance(
        1 + 0.3 * sign
    ),
    "posterize": lambda image, sign: ImageOps.posterize(image, 8),
    "solarize": lambda image, sign: ImageOps.solarize(image, 142.2),
    "translate_y": lambda image, sign: affine(
        image, (1, 0, 0, 0, 1, 0.4028 * image.size[1] * sign)
    ),
    "shear_x": lambda image, sign: affine(image, (1, 0.3 * 5 / 9 * sign, 0, 0, 1, 0)),
    "brightness": lambda image, sign: ImageEnhance.Brightness(image).enhance(
        1 + 0.3 * sign
    ),
    "shear_y": lambda image, sign: affine(image, (1, 0, 0, 0, 1, 0)),
    "translate_x": lambda image, sign: affine(
        image, (1, 0, 0.05035 * image.size[0] * sign, 0, 1, 0)
    ),
    "sharpness": lambda image, sign: ImageEnhance.Sharpness(image).enhance(
        1 + 0.5 * sign
    ),
    "invert": lambda image, sign: ImageOps.invert(image),
    "color": lambda image, sign: ImageEnhance.Color(image).enhance(1 + 0.4 * sign),
    "equalize": lambda image, sign: ImageOps.equalize(image),
    "rotate": lambda image, sign: image.rotate(10, fillcolor=GREY),
}


def draws():
    """float32 [14, 64], what each operation draws for each image."""
    keys = random.example_keys(5, 2, IDS)
    return np.stack([random.uniform(keys, number) for number in range(14)])


def test_the_operations_stand_in_the_order_of_the_source():
    names = [operation.__name__ for operation, _ in jda.OPERATIONS]
    assert names == list(PILLOW)


@pytest.mark.parametrize("number, name", list(enumerate(PILLOW)))
def test_an_operation_with_its_magnitude_equals_pillow(number, name, images):
    keys = random.example_keys(5, 2, IDS)
    got = jda.joint_augmentation(
        tf.constant(images), keys, number, jda.OPERATIONS[number : number + 1]
    ).numpy()
    chance = draws()[number]
    assert 8 < np.sum(chance < 0.3) < 32
    expected = images.copy()
    for row in np.flatnonzero(chance < 0.3):
        sign = -1 if chance[row] < 0.15 else 1
        expected[row] = PILLOW[name](Image.fromarray(images[row]), sign)
    if name in ("posterize", "shear_y"):  # the identities of the source
        np.testing.assert_array_equal(expected, images)
    else:
        assert not np.array_equal(expected, images)
    difference = np.abs(expected.astype(int) - got)
    # Exact but for rare pixels where 32-bit magnitudes tip a rounding.
    tolerance = 256 if name in ("shear_x", "rotate") else 1
    assert difference.max() <= tolerance, f"{name}: {difference.max()}"
    assert np.mean(difference > 0) < 1e-3, f"{name}: {np.mean(difference > 0)}"


def test_both_signs_are_drawn():
    chance = draws()
    assert np.sum(chance < 0.15) > 100
    assert np.sum((chance >= 0.15) & (chance < 0.3)) > 100


def test_the_operations_follow_each_other(images):
    keys = random.example_keys(5, 2, IDS)
    expected = tf.constant(images)
    for number in range(14):
        one = jda.OPERATIONS[number : number + 1]
        expected = jda.joint_augmentation(expected, keys, number, one)
    got = aug.make_augment("jda")(images, IDS, 5, 2)
    np.testing.assert_array_equal(got, expected)


def test_each_operation_is_applied_to_three_tenths_and_alone():
    count = 8000
    ids = tf.range(count, dtype=tf.int64)
    keys = random.example_keys(1, 0, ids)
    blank = tf.zeros([count, 1, 1, 1], tf.uint8)
    applied = []
    for number in range(14):
        operations = ((lambda image, magnitude: image + 1, lambda sign, shape: sign),)
        got = jda.joint_augmentation(blank, keys, number, operations)
        applied.append(got.numpy().ravel())
    shares = np.mean(applied, axis=1)
    np.testing.assert_allclose(shares, 0.3, atol=0.02)
    both = np.corrcoef(applied) - np.eye(14)
    assert np.abs(both).max() < 0.05, "operations are drawn together"


def test_a_view_depends_on_the_example_and_not_on_its_batch(images):
    augment = aug.make_augment("jda,crop,flip")
    shapes = (
        tf.TensorSpec([None, 32, 40, 3], tf.uint8),
        tf.TensorSpec([None], tf.int64),
    )
    graph = tf.function(lambda x, ids: augment(x, ids, 5, 2), input_signature=shapes)
    whole = graph(images, IDS).numpy()
    some = np.array([40, 3, 17])
    np.testing.assert_array_equal(whole[some], graph(images[some], IDS[some]))
    eager = augment(images, IDS, 5, 2)
    np.testing.assert_array_equal(whole, eager)
    assert whole.dtype == np.uint8 and whole.shape == images.shape
    for seed, view in ((5, 3), (6, 2)):
        other = augment(images, IDS, seed, view)
        assert not np.array_equal(whole, other)


def test_two_in_a_row_draw_for_themselves(images):
    once = aug.make_augment("jda")
    keys = random.example_keys(5, 2, IDS)
    second = jda.joint_augmentation(once(images, IDS, 5, 2), keys, aug.DRAWS_PER_STEP)
    twice = aug.make_augment("jda,jda")(images, IDS, 5, 2)
    np.testing.assert_array_equal(twice, second)
    assert len(jda.OPERATIONS) <= aug.DRAWS_PER_STEP


def test_grey_images_come_out_as_the_same_in_colour():
    digits = load_source("digits").train.images[:64]
    got = aug.make_augment("jda")(digits, IDS, 0, 0).numpy()
    assert got.shape == digits.shape and got.dtype == np.uint8
    colour = aug.make_augment("jda")(np.repeat(digits, 3, -1), IDS, 0, 0).numpy()
    np.testing.assert_array_equal(colour[..., :1], got)
    assert not np.array_equal(got, digits)


def test_an_empty_batch_passes():
    none = np.zeros((0, 8, 8, 3), np.uint8)
    assert aug.make_augment("jda")(none, IDS[:0], 0, 0).shape == (0, 8, 8, 3)


def test_other_channels_are_refused():
    images = np.zeros((1, 8, 8, 2), np.uint8)
    with pytest.raises(UserError, match="jda needs images of 1 or 3 channels, got 2"):
        aug.make_augment("jda")(images, IDS[:1], 0, 0)
