"""Real digits written as image files, read back by the folder source."""

import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from tf_mskd.data.decode import decode_into, suffixes
from tf_mskd.data.sources import load_source
from tf_mskd.data.summary import describe
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
    source = load_source("folder", root)
    assert source.image_shape == (8, 8, 3)
    assert source.notes == ("1 of 31 resized from 20x10 (crop)",)
    source = load_source("folder", str(root), 6, resize="squeeze")
    assert source.image_shape == (6, 6, 3)
    assert source.notes == ("31 of 31 resized from 8x8 to 20x10 (squeeze)",)


def test_test_folder_goes_before_val(root):
    for name in ("one", "two", "zero"):
        write(root, "test", name, np.full((8, 8), 9, np.uint8))
    assert load_source("folder", root).test.images.shape == (3, 8, 8, 3)


def test_other_files_and_hidden_folders_are_passed_over(root):
    for name in ("notes.txt", "film.mpg", "labels", "._000.png", "deep/.b/0.png"):
        path = root / "train" / "one" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    for name in ("train/.cache", "extra", "__MACOSX"):
        (root / name).mkdir()
    Image.new("L", (8, 8)).save(root / "train" / "cover.png")
    write(root, "test", "one", np.zeros((8, 8), np.uint8))
    for name in ("two", "zero"):
        write(root, "test", name, np.zeros((8, 8), np.uint8))
    source = load_source("folder", root)
    assert len(source.train.labels) == 15
    assert source.notes == (
        "passed over: 1 .mpg, 1 .txt, 1 folder extra, 1 folder val (test is there), "
        "4 hidden, 1 images outside of class folders, 1 without a suffix",
    )
    line = describe(source)
    counts = "train 15 images (one 5, two 5, zero 5), test 3 (one 1, two 1, zero 1)"
    assert line.startswith(f"data folder: {counts}, 8x8x3; passed over: 1 .mpg")


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
    with pytest.raises(UserError, match="Class folder .*three holds no image .*png"):
        load_source("folder", root)
    write(root, "val", "three", np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match="must agree; only one of them has three"):
        load_source("folder", root)


def test_one_class_and_images_without_classes_are_refused(tmp_path):
    write(tmp_path, "train", "one", np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match="at least two classes in .*train, got one, 'o"):
        load_source("folder", tmp_path)
    shutil.copytree(tmp_path / "train" / "one", tmp_path / "flat")
    with pytest.raises(UserError, match="but .*flat has no class folder"):
        load_source("folder", tmp_path / "flat", test_fraction=0.5)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training", "testing"),
        ("Train", "VALID"),
        ("train", "validation"),
        ("train", "eval"),
    ],
)
def test_splits_have_their_common_spellings(root, train, test):
    usual = load_source("folder", root)
    (root / "train").rename(root / train)
    (root / "val").rename(root / test)
    source = load_source("folder", root)
    assert np.array_equal(source.train.images, usual.train.images)
    assert np.array_equal(source.test.images, usual.test.images)


def test_ambiguous_splits_are_refused(root):
    (root / "valid").mkdir()
    with pytest.raises(UserError, match="has both val and valid: keep one"):
        load_source("folder", root)
    shutil.rmtree(root / "valid")
    with pytest.raises(UserError, match="test_fraction=0.5 is for .*val is there: dr"):
        load_source("folder", root, test_fraction=0.5)
    shutil.rmtree(root / "train")
    with pytest.raises(UserError, match="has val, no train"):
        load_source("folder", root)


def test_images_in_sub_folders_and_behind_links_are_found(root):
    usual = load_source("folder", root)
    deep = root / "train" / "one" / "a" / "b"
    deep.mkdir(parents=True)
    (root / "train" / "one" / "000.png").rename(deep / "000.png")
    (deep / "round").symlink_to(root / "train" / "one")  # a circle
    (root / "val").rename(root / "elsewhere")
    (root / "val").symlink_to(root / "elsewhere")
    source = load_source("folder", root)
    assert len(source.train.labels) == 15
    assert rows(source.train) == rows(usual.train)


def rows(split):
    pairs = zip(split.images, split.labels, strict=True)
    return sorted((image.tobytes(), int(label)) for image, label in pairs)


@pytest.mark.parametrize("flat", [True, False])
def test_a_folder_without_test_split_is_split_by_class(root, flat):
    shutil.rmtree(root / "val")
    top = root / "train" if flat else root
    with pytest.raises(UserError, match="no test split .*set --test_fraction, such as"):
        load_source("folder", top)
    source = load_source("folder", top, test_fraction=0.4)
    assert np.array_equal(np.bincount(source.train.labels), [3, 3, 3])
    assert np.array_equal(np.bincount(source.test.labels), [2, 2, 2])
    write(root, "train", "one", np.zeros((8, 8), np.uint8))
    more = load_source("folder", top, test_fraction=0.4)
    kept = {image.tobytes() for image in source.test.images[source.test.labels > 0]}
    assert kept == {image.tobytes() for image in more.test.images[more.test.labels > 0]}


def test_split_does_not_depend_on_where_the_folder_lies(root):
    shutil.rmtree(root / "val")
    shutil.copytree(root / "train", root / "moved")
    one, two = (
        load_source("folder", root / name, test_fraction=0.4)
        for name in ("train", "moved")
    )
    assert np.array_equal(one.test.images, two.test.images)


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    for name in ("one", "two"):
        write(tmp_path, "", name, np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match="Class 'one' of .* has one image; .* two"):
        load_source("folder", tmp_path, test_fraction=0.5)


def test_a_folder_that_may_not_be_read_is_named(root, monkeypatch):
    def scandir(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(UserError, match=r"Cannot list .* \(Permission denied\)"):
        load_source("folder", root)


def test_videos_and_documents_are_no_images():
    assert {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif"} < suffixes()
    assert {".webp", ".ppm", ".jp2"} < suffixes()
    assert not {".mpg", ".eps", ".pdf", ".h5", ".txt", ""} & suffixes()


def test_an_interrupt_stops_the_reading(monkeypatch):
    """What was handed to the threads is dropped, not read to the end."""
    read = []

    def stop(files, *rest):
        read.append(files)
        if len(read) == 3:
            signal.raise_signal(signal.SIGTERM)
        time.sleep(0.001)
        return Image.new("RGB", (2, 2))

    def handler(number, frame):
        raise SystemExit(number)

    monkeypatch.setattr("tf_mskd.data.decode.read_image", stop)
    count = 3000
    old = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(SystemExit):
            images = np.empty((count, 2, 2, 3), np.uint8)
            decode_into(images, np.empty((count, 2), int), list(range(count)))
    finally:
        signal.signal(signal.SIGTERM, old)
    assert len(read) < count
