"""Real digits written as image files, read back by the folder source."""

import numpy as np
import pytest
from PIL import Image

from tf_mskd.data.sources import load_source
from tf_mskd.utils.errors import UserError


def write(root, split, name, image):
    folder = root / split / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{len(list(folder.iterdir())):03}.png"
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    digits = load_source("digits")
    for name in ("one", "two", "zero"):
        label = ("zero", "one", "two").index(name)
        for split, part in (("train", digits.train), ("val", digits.test)):
            for image in part.images[part.labels == label][:5]:
                write(tmp_path, split, name, image[..., 0])
    return tmp_path


def test_files_come_back_sorted_and_exact(root):
    digits = load_source("digits")
    source = load_source("folder", root)
    assert source.class_names == ("one", "two", "zero")
    assert source.train.images.shape == (15, 8, 8, 3)
    assert np.array_equal(source.train.labels, np.repeat([0, 1, 2], 5))
    zeros = digits.train.images[digits.train.labels == 0][:5]
    assert np.array_equal(source.train.images[10:], np.repeat(zeros, 3, axis=-1))
    assert np.array_equal(
        source.test.images[:5, ..., :1],
        digits.test.images[digits.test.labels == 1][:5],
    )


def test_images_are_resized_to_the_first_or_as_asked(root):
    big = np.zeros((20, 10), np.uint8)
    write(root, "train", "two", big)
    assert load_source("folder", root).image_shape == (8, 8, 3)
    assert load_source("folder", str(root), 6).image_shape == (6, 6, 3)


def test_test_folder_goes_before_val(root):
    for name in ("one", "two", "zero"):
        write(root, "test", name, np.full((8, 8), 9, np.uint8))
    assert load_source("folder", root).test.images.shape == (3, 8, 8, 3)


def test_other_files_and_hidden_folders_are_passed_over(root):
    (root / "train" / "one" / "notes.txt").write_text("x")
    (root / "train" / ".cache").mkdir()
    assert len(load_source("folder", root).train.labels) == 15


def test_corrupt_and_truncated_files_are_named(root):
    path = root / "train" / "two" / "002.png"
    whole = path.read_bytes()
    for content in (b"not an image", whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match="Cannot read image .*two.002.png.*repair"):
            load_source("folder", root)


def test_missing_parts_are_refused(root, tmp_path_factory):
    with pytest.raises(UserError, match="needs --data_dir"):
        load_source("folder")
    with pytest.raises(UserError, match="is no folder"):
        load_source("folder", root / "nowhere")
    empty = tmp_path_factory.mktemp("empty")
    (empty / "train").mkdir()
    with pytest.raises(UserError, match="has no class"):
        load_source("folder", empty)
    (root / "val" / "three").mkdir()
    with pytest.raises(UserError, match="Class folder .*three holds no .*png"):
        load_source("folder", root)
    write(root, "val", "three", np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match="must agree; only one of them has three"):
        load_source("folder", root)
