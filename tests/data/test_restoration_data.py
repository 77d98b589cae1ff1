"""Pairs of images: darkened photographs, files of pairs, and their augmentation."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_mskd import UserError
from tf_mskd.data.arrays import Split
from tf_mskd.data.augment import make_augment
from tf_mskd.data.low_light import NOISE, at_level, darken, load_low_light
from tf_mskd.data.pipeline import eval_stream, train_stream
from tf_mskd.data.sources import load_source
from tf_mskd.data.summary import describe

RANDOM = np.random.default_rng(0)


def test_known_answers_of_darkening():
    image = np.uint8([0, 64, 128, 255])
    expected = [0, 7.30969029, 33.58651687, 153]
    np.testing.assert_allclose(at_level(image, 0.6, 2.2), expected, 1e-8)


def test_darkening_is_a_function_of_seed_and_position():
    images = np.full((4, 64, 64, 3), 200, "uint8")
    dark = darken(images)
    np.testing.assert_array_equal(darken(images[:2]), dark[:2])
    assert (darken(images, seed=1) != dark).any()
    means = dark.mean((1, 2, 3))
    assert len(set(means)) == 4 and (means < 0.7 * 200).all()
    np.testing.assert_allclose(dark.std((1, 2, 3)), 255 * NOISE, rtol=0.05)


def test_the_built_in_photographs():
    source = load_source("low_light")
    assert source.image_shape == (64, 64, 3) and source.num_classes == 3
    assert source.train.pictures == ("label",) and not source.train.maps
    for split in (source.train, source.test):
        assert split.images.mean() < 0.5 * split.labels.mean()
        assert not split.strata.any()
    assert "train 312 images (each with its clean image)" in describe(source)
    assert load_low_light(side=32).test.images.shape[1:] == (32, 32, 3)
    with pytest.raises(UserError, match="have 32, 64 or 96 pixels a side, got 48"):
        load_source("low_light", image_size=48)


@pytest.mark.run
def test_clean_images_follow_the_augmentation():
    images = RANDOM.integers(1, 256, (8, 6, 6, 3), "uint8")
    split = Split(images, {"label": images, "other": images.astype("int32")})
    stream = train_stream(
        split,
        np.arange(8),
        batch_size=8,
        seed=0,
        augment=make_augment("crop,flip", crop_padding=2),
        start_step=0,
        num_steps=1,
    )
    moved, targets = next(iter(stream))
    order = targets["index"].numpy()
    assert (moved.numpy() != images[order]).any() and (moved.numpy() == 0).any()
    for name in ("label", "other"):
        np.testing.assert_array_equal(targets[name], tf.cast(moved, "int32"))
    (still, targets, _), *_ = eval_stream(split, batch_size=8)
    np.testing.assert_array_equal(targets["label"], tf.cast(still, "int32"))


@pytest.mark.parametrize("name", ["rotate", "cutout", "autoaugment", "jda"])
def test_other_augmentations_are_refused(name):
    images = np.zeros((4, 6, 6, 3), "uint8")
    with pytest.raises(UserError, match=f"Clean images cannot follow .*'{name}'"):
        train_stream(
            Split(images, {"label": images}),
            np.arange(4),
            batch_size=2,
            seed=0,
            augment=make_augment(name),
            start_step=0,
            num_steps=1,
        )


LAYOUTS = {
    "folders": ("train/input", "train/target", "test/input", "test/target"),
    "lol": ("our485/low", "our485/high", "eval15/low", "eval15/high"),
}


def save(root, layout="folders", count=3):
    """Pairs whose pixels are their number; the clean one is 100 more."""
    for place, folder in enumerate(LAYOUTS[layout]):
        (root / folder).mkdir(parents=True)
        for k in range(count):
            image = np.full((6, 8, 3), k + 100 * (place % 2), "uint8")
            Image.fromarray(image).save(root / folder / f"{k}.png")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_are_paired_by_name(tmp_path, layout):
    save(tmp_path, layout)
    source = load_source("pairs", tmp_path)
    assert source.image_shape == (6, 8, 3)
    for split in (source.train, source.test):
        assert split.images[:, 0, 0, 0].tolist() == [0, 1, 2]
        assert split.labels[:, 0, 0, 0].tolist() == [100, 101, 102]
    assert load_source("pairs", tmp_path, image_size=4).image_shape == (4, 4, 3)


def test_mistakes_in_pairs_are_told_in_a_line(tmp_path):
    def refused(message):
        with pytest.raises(UserError, match=message):
            load_source("pairs", tmp_path)

    with pytest.raises(UserError, match="'pairs' needs --data_dir, a root with train/"):
        load_source("pairs")
    refused("Expected pairs as train/.* has neither")
    save(tmp_path)
    folder = tmp_path / "train" / "target"
    (folder / "1.png").rename(folder / "7.png")
    refused(r"input.1.png has no partner of its name in .*target: add it")
    (folder / "7.png").rename(folder / "1.png")
    Image.new("RGB", (8, 7)).save(folder / "2.png")
    refused("must be of one size, got 6x8 and 7x8")
    (folder / "2.png").write_bytes(b"no image")
    refused("Cannot read image .*2.png")
    Image.new("RGB", (8, 6)).save(folder / "2.jpg")
    refused("has 2 images called 2")
    for path in folder.iterdir():
        path.unlink()
    refused("target holds no image")
    folder.rmdir()
    refused("target is no folder")
