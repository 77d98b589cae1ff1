"""Large pictures as patches: every pixel where it was, numbered by picture."""

import numpy as np
import pytest
from PIL import Image

from tf_mskd.data import load_source
from tf_mskd.data.patches import grid
from tf_mskd.tasks.classification import Classification
from tf_mskd.tasks.meter import Meter
from tf_mskd.utils.errors import UserError


def pixels(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two classes; pictures of 8x12 and one of 9x8, and their pixels by path."""
    made = {}
    sizes = {"train/a/0": (8, 12), "train/a/1": (9, 8), "train/b/0": (8, 12)}
    sizes |= {"test/a/0": (8, 12), "test/b/0": (8, 12)}
    for seed, (name, size) in enumerate(sizes.items()):
        made[name] = pixels(*size, seed)
        path = tmp_path / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made[name]).save(path)
    return tmp_path, made


def test_patches_lie_side_by_side_in_the_centre():
    assert grid(9, 8, 4) == [(0, 0, 4, 4), (4, 0, 8, 4), (0, 4, 4, 8), (4, 4, 8, 8)]
    assert grid(4, 7, 4) == [(1, 0, 5, 4)] and grid(3, 9, 4) == []


def test_a_folder_is_read_as_patches(folder):
    root, made = folder
    train = load_source("folder", str(root), patch_size=4).train
    assert train.images.shape == (6 + 4 + 6, 4, 4, 3)
    np.testing.assert_array_equal(train.images[1], made["train/a/0"][:4, 4:8])
    np.testing.assert_array_equal(train.images[3], made["train/a/0"][4:, :4])
    np.testing.assert_array_equal(train.images[-1], made["train/b/0"][4:, 8:])
    assert train.labels.tolist() == [0] * 10 + [1] * 6
    assert train.targets["picture"].tolist() == [0] * 6 + [1] * 4 + [2] * 6
    small = load_source("folder", str(root), image_size=2, patch_size=4)
    assert small.image_shape == (2, 2, 3) and len(small.test.labels) == 12


def test_a_picture_smaller_than_a_patch_is_named(folder):
    with pytest.raises(
        UserError, match=r"1.tif has 9x8 pixels, less .* 10x10|0.tif has"
    ):
        load_source("folder", str(folder[0]), patch_size=10)


def test_a_patch_that_cannot_be_read_is_named(folder):
    (folder[0] / "test" / "b" / "0.tif").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"Cannot read image .*0.tif \("):
        load_source("folder", str(folder[0]), patch_size=4)


def test_a_pictures_answer_is_the_mean_over_its_patches():
    meter = Meter(Classification())
    logits = np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 2.0], [1.0, 0.0]])
    label, picture = np.array([0, 0, 0, 1, 1]), np.array([5, 5, 5, 8, 8])
    for part in (slice(0, 2), slice(2, 5)):  # a picture may lie in two batches
        meter.update({"exit_1": logits[part]}, label[part], picture[part])
    found = meter.results()
    assert found["accuracy"]["exit_1"] == pytest.approx(2 / 5)
    assert found["picture_accuracy"]["exit_1"] == 1.0  # means (1, 2/3) and (1/2, 1)
    assert set(found["picture_accuracy"]) == set(found["accuracy"])
