"""TFDS sets: a small one prepared from real digits, and every refusal."""

import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import gcs_utils

from tests.support import store
from tf_mskd.data.sources import load_source
from tf_mskd.utils.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return load_source("digits")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, digits):
    path = tmp_path_factory.mktemp("tfds")
    train = digits.train.images[:40], digits.train.labels[:40]
    test = digits.test.images[:20], digits.test.labels[:20]
    fixed = tfds.features.Image(shape=(8, 8, 1))
    free = tfds.features.Image(shape=(None, None, 1))
    text = tfds.features.Text()
    store(path, "small_digits", {"train": train, "test": test}, fixed, note=text)
    store(path, "free_digits", {"train": train, "validation": test}, free)
    store(path, "no_test", {"train": train}, fixed)
    number = tfds.features.Scalar(np.int64)
    store(path, "plain_label", {"train": train, "test": test}, fixed, number)
    return path


def rows(split):
    pairs = zip(split.images, split.labels, strict=True)
    return sorted((image.tobytes(), int(label)) for image, label in pairs)


def test_prepared_set_comes_back_whole_and_in_a_fixed_order(data_dir, digits):
    source = load_source("small_digits", data_dir)
    assert source.class_names == tuple(f"d{k}" for k in range(10))
    assert source.train.images.dtype == np.uint8
    assert source.train.labels.dtype == np.int32
    targets = {"label": digits.train.labels[:40]}
    expected = type(digits.train)(digits.train.images[:40], targets)
    assert rows(source.train) == rows(expected)
    again = load_source("small_digits", str(data_dir))
    assert np.array_equal(source.train.images, again.train.images)
    assert np.array_equal(source.test.labels, again.test.labels)


def test_images_of_varying_size_need_image_size(data_dir):
    with pytest.raises(UserError, match=r"vary in size .*set --image_size"):
        load_source("free_digits", data_dir)
    source = load_source("free_digits", data_dir, image_size=8)
    assert rows(source.train) == rows(load_source("no_size_check", data_dir).train)


@pytest.fixture(scope="module", autouse=True)
def same_rows_fixed_size(data_dir, digits):
    train = digits.train.images[:40], digits.train.labels[:40]
    image = tfds.features.Image(shape=(8, 8, 1))
    store(data_dir, "no_size_check", {"train": train, "test": train}, image)


def test_resizing_a_fixed_size(data_dir):
    assert load_source("small_digits", data_dir, 5).image_shape == (5, 5, 1)


def test_resizing_keeps_the_aspect_ratio_unless_squeezed(tmp_path):
    images = np.zeros((10, 4, 12, 3), np.uint8)
    images[:, :, 4:8] = 200  # the centre that is kept
    rows = images, np.arange(10, dtype=np.int32)
    free = tfds.features.Image(shape=(None, None, 3))
    store(tmp_path, "wide", {"train": rows, "test": rows}, free)
    cropped = load_source("wide", tmp_path, 4)
    squeezed = load_source("wide", tmp_path, 4, "squeeze")
    assert (cropped.test.images == 200).all()
    assert (squeezed.test.images[..., 0, :] < 99).all()


def test_labels_out_of_range_are_refused(data_dir, tmp_path):
    shutil.copytree(data_dir / "small_digits", tmp_path / "small_digits")
    (path,) = tmp_path.rglob("label.labels.txt")
    path.write_text("\n".join(path.read_text().split()[:4]))
    with pytest.raises(UserError, match=r"must be in \[0, 4\), got \d at position"):
        load_source("small_digits", tmp_path)


def test_sets_that_cannot_be_used_are_refused(data_dir):
    with pytest.raises(UserError, match=r"needs the splits train and test.*has train"):
        load_source("no_test", data_dir)
    with pytest.raises(UserError, match="not an image-classification set"):
        load_source("plain_label", data_dir)


def test_memory_is_checked_before_decoding(data_dir, monkeypatch):
    monkeypatch.setattr("tf_mskd.data.arrays.MEMORY_FRACTION", 1e-9)
    with pytest.raises(UserError, match="60 images of 8x8x1|--image_size"):
        load_source("small_digits", data_dir, memory="decoded")


def test_broken_file_is_refused(data_dir, tmp_path, digits):
    train = digits.train.images[:40], digits.train.labels[:40]
    image = tfds.features.Image(shape=(8, 8, 1))
    store(tmp_path, "broken", {"train": train, "test": train}, image)
    (file,) = tmp_path.glob("broken/1.0.0/*train*record*")
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match="'train' of 'broken' in .* cannot be read"):
        load_source("broken", tmp_path)


def test_unprepared_set_is_refused_with_the_command(tmp_path, monkeypatch):
    asked = []  # of the network, which TFDS may have switched on
    monkeypatch.setattr(gcs_utils, "exists", asked.append)
    command = r"python -m tf_mskd\.data\.prepare --dataset=cifar100 --data_dir="
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=f"not prepared in .*; run {command}"):
            load_source("cifar100", directory)
    (tmp_path / "cifar100").mkdir()
    with pytest.raises(UserError, match="'cifar100' is not prepared"):
        load_source("cifar100", tmp_path)
    with pytest.raises(UserError, match="--archive=ZIP"):
        load_source("tiny_imagenet", tmp_path)
    (tmp_path / "no_set").mkdir()
    with pytest.raises(UserError, match="'no_set' is not prepared"):
        load_source("no_set", tmp_path)
    assert not asked


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="Unknown data set 'cifra100'; did you mean 'c"):
        load_source("cifra100")
    with pytest.raises(UserError, match="Unknown data set 'digit'.*'digits'"):
        load_source("digit")
    with pytest.raises(UserError, match="Unknown data set ''"):
        load_source("")
