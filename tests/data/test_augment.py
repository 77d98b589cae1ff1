"""Crop, flip, rotate and cutout against plain NumPy, and their statelessness."""

import numpy as np
import pytest
import tensorflow as tf

from tf_mskd.data import augment as aug
from tf_mskd.data import counter_random as random
from tf_mskd.data import moves
from tf_mskd.data.sources import load_source
from tf_mskd.utils.errors import UserError

IDS = np.arange(64, dtype=np.int64)
ALL = "crop,flip,rotate,autoaugment,cutout"


@pytest.fixture(scope="module")
def images():
    """Real digits in three channels, made unlike, as uint8 [64, 8, 8, 3]."""
    grey = load_source("digits").train.images[:64]
    return np.concatenate([grey, 255 - grey, grey // 2], axis=-1)


def reference_crop(images, top, left, padding, flipped=None):
    border = (padding, padding)
    padded = np.pad(images, ((0, 0), border, border, (0, 0)))
    height, width = images.shape[1:3]
    windows = [
        image[y : y + height, x : x + width]
        for image, y, x in zip(padded, top, left, strict=True)
    ]
    if flipped is not None:
        pairs = zip(windows, flipped, strict=True)
        windows = [window[:, ::-1] if flip else window for window, flip in pairs]
    return np.stack(windows)


def test_crop_by_hand():
    image = tf.constant([[1, 2], [3, 4]], tf.uint8)[None, :, :, None]
    images = tf.repeat(image, 3, axis=0)
    got = moves.crop(images, tf.constant([0, 1, 2]), tf.constant([0, 1, 1]), 1)
    expected = [[[0, 0], [0, 1]], [[1, 2], [3, 4]], [[3, 4], [0, 0]]]
    assert got[..., 0].numpy().tolist() == expected
    flipped = moves.flip_horizontally(images, tf.constant([True, False, True]))
    expected = [[[2, 1], [4, 3]], [[1, 2], [3, 4]], [[2, 1], [4, 3]]]
    assert flipped[..., 0].numpy().tolist() == expected


@pytest.mark.parametrize("shape", [(5, 7, 3), (6, 4, 1)])
def test_crop_and_flip_match_numpy(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, *shape), np.uint8)
    top, left = rng.integers(0, 7, (2, 40), np.int32)
    flipped = rng.integers(0, 2, 40).astype(bool)
    for flip in (None, flipped):
        got = moves.crop(tf.constant(images), top, left, 3, flip)
        assert np.array_equal(got, reference_crop(images, top, left, 3, flip))


def test_crop_then_flip_in_one_gather_equals_the_two_steps(images):
    keys = random.example_keys(3, 1, IDS)
    top, left = (random.integers(keys, draw, 5).numpy() for draw in (0, 1))
    flipped = random.uniform(keys, aug.DRAWS_PER_STEP).numpy() < 0.5
    got = aug.make_augment("crop,flip", crop_padding=2)(images, IDS, 3, 1)
    assert np.array_equal(got, reference_crop(images, top, left, 2, flipped))
    assert 20 < flipped.sum() < 44 and set(top) == set(left) == set(range(5))


def test_order_is_as_listed(images):
    there = aug.make_augment("flip,crop")(images, IDS, 0, 0)
    back = aug.make_augment(" crop , flip ")(images, IDS, 0, 0)
    assert not np.array_equal(there, back)


def test_a_fraction_of_the_views_has_the_strong_part(images):
    weak = aug.make_augment("crop,flip")(images, IDS, 3, 1).numpy()
    full = aug.make_augment("crop,flip,cutout", cutout_size=2)(images, IDS, 3, 1)
    some = aug.make_augment("crop,flip,cutout", cutout_size=2, augment_fraction=0.25)
    got = some(images, IDS, 3, 1).numpy()
    chosen = random.uniform(random.example_keys(3, 1, IDS), aug.STRONG_DRAW) < 0.25
    expected = np.where(chosen.numpy()[:, None, None, None], full.numpy(), weak)
    assert np.array_equal(got, expected)
    assert 4 < chosen.numpy().sum() < 28  # of 64
    other = random.uniform(random.example_keys(3, 2, IDS), aug.STRONG_DRAW) < 0.25
    assert np.any(chosen.numpy() != other.numpy())  # another view, another choice


@pytest.mark.parametrize("fraction, names", [(0.0, "flip"), (1.0, "flip,rotate,jda")])
def test_no_fraction_is_the_weak_part_and_all_of_it_the_usual(images, fraction, names):
    some = aug.make_augment("flip,rotate,jda", augment_fraction=fraction)
    expected = aug.make_augment(names)(images, IDS, 0, 0)
    assert np.array_equal(some(images, IDS, 0, 0), expected)


@pytest.mark.parametrize("names", ["", "none", None, "none,none"])
def test_nothing_asked_for_changes_nothing(images, names):
    assert np.array_equal(aug.make_augment(names)(images, IDS, 0, 0), images)


def test_zero_strength_is_the_identity(images):
    keep = aug.make_augment("crop,rotate", crop_padding=0, rotation_degrees=0.0)
    assert np.array_equal(keep(images, IDS, 0, 0), images)


def test_quarter_turns_match_numpy(images):
    for quarters in (1, 2, 3):
        degrees = tf.fill([64], 90.0 * quarters)
        got = moves.rotate(tf.constant(images), degrees)
        assert np.array_equal(got, np.rot90(images, quarters, axes=(1, 2)))


def reference_rotate(image, degrees):
    """Bilinear with zeros outside, float64, one pixel at a time."""
    height, width, channels = image.shape
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    result = np.zeros(image.shape)
    for row, column in np.ndindex(height, width):
        x, y = column - (width - 1) / 2, row - (height - 1) / 2
        source_x = cos * x - sin * y + (width - 1) / 2
        source_y = sin * x + cos * y + (height - 1) / 2
        for i in (int(np.floor(source_y)), int(np.floor(source_y)) + 1):
            for j in (int(np.floor(source_x)), int(np.floor(source_x)) + 1):
                if 0 <= i < height and 0 <= j < width:
                    share = (1 - abs(source_y - i)) * (1 - abs(source_x - j))
                    result[row, column] += share * image[i, j]
    return result


def test_rotation_matches_a_reference(images):
    degrees = np.array([20.0, -13.0, 45.0, 3.5], np.float32)
    oblong = images[:4, 1:7]  # [4, 6, 8, 3]
    got = moves.rotate(tf.constant(oblong), degrees).numpy()
    for image, angle, turned in zip(oblong, degrees, got, strict=True):
        assert np.abs(reference_rotate(image, angle) - turned).max() <= 0.51


def test_rotation_angles_stay_in_range(images):
    keys = random.example_keys(0, 0, IDS)
    turn = (2 * random.uniform(keys, 0) - 1) * 20.0
    got = aug.make_augment("rotate", rotation_degrees=20.0)(images, IDS, 0, 0)
    assert np.array_equal(got, moves.rotate(tf.constant(images), turn))
    assert -20 <= turn.numpy().min() < -15 and 15 < turn.numpy().max() <= 20


def test_cutout_by_hand():
    images = tf.ones([3, 4, 5, 1], tf.uint8)
    got = moves.cutout(images, tf.constant([0, 2, 3]), tf.constant([0, 2, 4]), 2)
    expected = np.ones((3, 4, 5))
    expected[0, :1, :1] = 0  # clipped at the top left corner
    expected[1, 1:3, 1:3] = 0
    expected[2, 2:4, 3:5] = 0
    assert np.array_equal(got[..., 0], expected)


def test_random_cutout_covers_every_pixel():
    ones = np.ones((400, 8, 8, 1), np.uint8)
    ids = np.arange(400, dtype=np.int64)
    got = aug.make_augment("cutout", cutout_size=4)(ones, ids, 0, 0).numpy()
    assert np.all(got.min(axis=0) == 0)
    sizes = (1 - got).sum(axis=(1, 2, 3))
    assert sizes.max() == 16 and sizes.min() == 4


@pytest.mark.parametrize("names", ["crop,flip", "rotate", ALL])
def test_a_view_depends_on_the_example_and_not_on_its_batch(images, names):
    augment = tf.function(aug.make_augment(names, cutout_size=4))
    whole = augment(images, IDS, 5, tf.constant(2, tf.int64)).numpy()
    some = np.array([40, 3, 17])
    again = augment(images[some], IDS[some], 5, tf.constant(2, tf.int64))
    assert np.array_equal(whole[some], again)
    eager = aug.make_augment(names, cutout_size=4)(images, IDS, 5, 2)
    assert np.array_equal(whole, eager)
    assert whole.dtype == np.uint8 and whole.shape == images.shape
    for seed, view in ((5, 3), (6, 2)):
        other = augment(images, IDS, seed, tf.constant(view, tf.int64))
        assert not np.array_equal(whole, other)


def test_bad_names_and_options_are_refused():
    with pytest.raises(UserError, match="Unknown augmentation 'flipp'.* 'flip'"):
        aug.make_augment("crop,flipp")
    with pytest.raises(UserError, match="crop_padding must be at least 0, got -1"):
        aug.make_augment(crop_padding=-1)
    with pytest.raises(UserError, match="rotation_degrees must be at least 0, got nan"):
        aug.make_augment(rotation_degrees=float("nan"))
    with pytest.raises(UserError, match="cutout_size must be at least 1, got 0"):
        aug.make_augment(cutout_size=0)
    with pytest.raises(UserError, match=r"augment_fraction must be in \[0, 1\], got 2"):
        aug.make_augment(augment_fraction=2)
    two_channels = np.zeros((1, 8, 8, 2), np.uint8)
    with pytest.raises(UserError, match="1 or 3 channels, got 2"):
        aug.make_augment("autoaugment")(two_channels, IDS[:1], 0, 0)


@pytest.mark.parametrize("names", ["crop", "flip", "crop,flip", "rotate"])
def test_label_maps_follow_their_images(names):
    # The image is the map's threshold: wherever its grey is sure, both must agree.
    blocks = np.random.default_rng(1).integers(0, 2, (16, 6, 6)).astype(np.int32)
    maps = blocks.repeat(6, 1).repeat(6, 2)
    images = (100 + 100 * maps).astype(np.uint8)[..., None]
    augment, ids = aug.make_augment(names), tf.range(16, dtype=tf.int64)
    view = tf.constant(3, tf.int64)
    moved = augment(tf.constant(images), ids, 7, view).numpy()[..., 0].astype(int)
    followed = augment.maps(tf.constant(maps), ids, 7, view).numpy()
    assert set(np.unique(followed)) <= {0, 1, 255}
    assert (followed == 255).any() == (names != "flip")
    sure = np.abs(moved[..., None] - [0, 100, 200]).min(-1) <= 2
    told = np.where(moved < 50, 255, moved > 150)
    assert sure.mean() > 0.6
    assert (told == followed)[sure].mean() > 0.995
    if names != "rotate":
        assert np.array_equal(told, followed)
    assert (followed != maps).any()
