"""Images of TFDS sets that stay in their files: TFRecord and ArrayRecord."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.support import store
from tf_mskd.data import record_index
from tf_mskd.data.record_index import RecordIndex, interleaved
from tf_mskd.data.sources import load_source
from tf_mskd.data.stored_images import StoredImages
from tf_mskd.utils.errors import UserError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    digits = load_source("digits")
    path = tmp_path_factory.mktemp("tfds")
    rows = {
        "train": (digits.train.images[:300], digits.train.labels[:300]),
        "test": (digits.test.images[:20], digits.test.labels[:20]),
    }
    image = tfds.features.Image(shape=(8, 8, 1))
    text = tfds.features.Text()
    store(path, "one_file", rows, image, note=text)
    store(path, "many_files", rows, image, shards=19)
    store(path, "by_position", rows, image, file_format="array_record")
    several = {
        split: (images, [[label] for label in labels])
        for split, (images, labels) in rows.items()
    }
    classes = tfds.features.ClassLabel(names=[f"d{k}" for k in range(10)])
    store(path, "several", several, image, labels=tfds.features.Sequence(classes))
    return path


@pytest.mark.parametrize("name", ["one_file", "many_files", "by_position"])
def test_images_and_labels_are_those_of_the_decoded_set(data_dir, name):
    streamed = load_source(name, data_dir, memory="stream")
    assert isinstance(streamed.train.images, StoredImages)
    if name == "by_position":  # whose files `as_dataset` does not read
        decoded = tfds.builder(name, data_dir=data_dir).as_data_source("train")
        images = np.stack([row["image"] for row in decoded])
        labels = [row["label"] for row in decoded]
    else:
        decoded = load_source(name, data_dir, memory="decoded").train
        images, labels = decoded.images, decoded.labels
    np.testing.assert_array_equal(streamed.train.images[:], images)
    np.testing.assert_array_equal(streamed.train.labels, labels)
    assert len(streamed.test.labels) == 20 and streamed.test.labels.dtype == np.int32


@pytest.mark.parametrize("cycle", [16, 1])
@pytest.mark.parametrize(
    "counts",
    [
        *([5], [40, 3, 17], [20] * 18, [1] * 40, [0, 33, 0]),
        *([16] * 17, [32] * 40, [16] * 16 + [3]),  # files that end with a turn
    ],
)
def test_the_order_is_that_of_the_pipeline_that_tfds_makes(counts, cycle):
    files = tf.data.Dataset.range(len(counts))
    made = files.interleave(
        lambda file: tf.data.Dataset.range(tf.constant(counts, tf.int64)[file]).map(
            lambda row: (file, row)
        ),
        cycle_length=cycle,
        block_length=16,
    )
    expected = [(int(file), int(row)) for file, row in made]
    assert len(expected) == sum(counts)
    assert list(interleaved(counts, cycle)) == expected


def files_of(data_dir, name="one_file"):
    return list((data_dir / name / "1.0.0").glob("*-train*"))


def test_damaged_files_are_refused(data_dir, tmp_path):
    content = files_of(data_dir)[0].read_bytes()
    path = tmp_path / "part"
    for damaged, message in (
        (content[:-1], "ends within a record"),
        (content + b"\x01", "ends within a record"),
        (content[:12] + b"\xff" * 40 + content[52:], "is damaged|no image"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            RecordIndex([path], "image", "label")
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no image or no label"):
        RecordIndex([path], "image", "class")
    path.write_bytes(b"")
    assert len(RecordIndex([path], "image", "label")) == 0


def test_a_damaged_set_is_told_in_one_line(data_dir, tmp_path):
    digits = load_source("digits")
    rows = dict.fromkeys(("train", "test"), (digits.train.images[:3], [0, 1, 2]))
    store(tmp_path, "damaged", rows, tfds.features.Image(shape=(8, 8, 1)))
    (path,) = files_of(tmp_path, "damaged")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"Split 'train' .*ends within a record.*again"):
        load_source("damaged", tmp_path, memory="stream")


def test_images_of_several_classes_are_not_streamed(data_dir):
    with pytest.raises(UserError, match="have several classes each"):
        load_source("several", data_dir, memory="stream")


def test_a_bad_image_of_a_set_is_named_or_passed_over(data_dir, monkeypatch, capsys):
    read = RecordIndex.read
    monkeypatch.setattr(
        RecordIndex, "read", lambda self, p: b"" if p == 7 else read(self, p)
    )
    images = load_source("one_file", data_dir, memory="stream").train.images
    with pytest.raises(UserError, match=r"read image 7 of .*one_file-train.tfrecord"):
        images[[7]]
    source = load_source("one_file", data_dir, memory="stream", skip_bad=True)
    first = source.train.images[[7]]
    (other,) = source.train.images.bad.values()
    assert source.train.labels[other] == source.train.labels[7]
    assert "takes its place" in capsys.readouterr().err
    decoded = load_source("one_file", data_dir, skip_bad=True).train.images
    assert isinstance(decoded, np.ndarray)
    np.testing.assert_array_equal(decoded[[7, other]], np.concatenate([first, first]))


def streamed(data_dir, index_dir, name="many_files"):
    return load_source(name, data_dir, memory="stream", index_dir=index_dir).train


def refuse_to_look(monkeypatch):
    def look(*_):
        raise AssertionError("looks through the files again")

    monkeypatch.setattr(record_index, "_images", look)
    monkeypatch.setattr("tf_mskd.data.tfds_streams.DataSourceIndex._labels", look)


@pytest.mark.parametrize("name", ["many_files", "by_position"])
def test_what_was_found_is_kept(data_dir, tmp_path, monkeypatch, capsys, name):
    first = streamed(data_dir, tmp_path / "index", name)
    refuse_to_look(monkeypatch)
    again = streamed(data_dir, tmp_path / "index", name)
    np.testing.assert_array_equal(again.labels, first.labels)
    np.testing.assert_array_equal(again.images[::7], first.images[::7])
    assert capsys.readouterr().out == ""
    with pytest.raises(AssertionError, match="looks through the files again"):
        streamed(data_dir, None, name)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda file: os.truncate(file, 100), "is damaged"),
        (lambda file: file.write_bytes(b""), "is damaged"),
        (lambda file: np.savez(file, labels=np.arange(3)), "is of other files"),
    ],
)
def test_a_file_that_is_no_index_is_made_anew(data_dir, tmp_path, capsys, change, told):
    expected = streamed(data_dir, tmp_path).labels
    change(tmp_path / "train.npz")
    for text in (f"index {tmp_path}/train.npz {told}", ""):
        found = streamed(data_dir, tmp_path).labels
        np.testing.assert_array_equal(found, expected)
        said = capsys.readouterr().out
        assert said.startswith(text) and bool(said) == bool(text)


def test_the_index_of_other_files_is_not_taken(data_dir, tmp_path, capsys):
    streamed(data_dir, tmp_path, "one_file")
    split = streamed(data_dir, tmp_path, "many_files")
    np.testing.assert_array_equal(split.labels, streamed(data_dir, None).labels)
    assert capsys.readouterr().out.count("is of other files") == 2  # train and test


def test_files_that_were_written_anew_are_looked_through_again(tmp_path, capsys):
    digits = load_source("digits")
    rows = dict.fromkeys(("train", "test"), (digits.train.images[:3], [0, 1, 2]))
    store(tmp_path, "touched", rows, tfds.features.Image(shape=(8, 8, 1)))
    streamed(tmp_path, tmp_path / "index", "touched")
    (path,) = files_of(tmp_path, "touched")
    os.utime(path, (1, 1))
    streamed(tmp_path, tmp_path / "index", "touched")
    assert "train.npz is of other files, or of what they" in capsys.readouterr().out


def test_an_index_that_cannot_be_written_is_said_and_no_more(
    data_dir, tmp_path, capsys
):
    (tmp_path / "index").write_text("no folder")
    split = streamed(data_dir, tmp_path / "index")
    np.testing.assert_array_equal(split.labels, streamed(data_dir, None).labels)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "Until then each start looks" in said[0]


def test_a_file_that_changes_during_a_run_is_named(tmp_path):
    digits = load_source("digits")
    rows = dict.fromkeys(("train", "test"), (digits.train.images[:3], [0, 1, 2]))
    store(tmp_path, "changing", rows, tfds.features.Image(shape=(8, 8, 1)))
    (path,) = files_of(tmp_path, "changing")
    images = load_source("changing", tmp_path, memory="stream").train.images
    assert images[:].any()
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(UserError, match="changing-train.* has changed since this run"):
        images[[0]]
    path.unlink()
    with pytest.raises(UserError, match="changing-train.* put it back"):
        images[[0]]


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="no /proc")
def test_no_file_stays_open(data_dir):
    """ImageNet has a thousand files, as many as a process may often have open."""
    before = len(os.listdir("/proc/self/fd"))
    index = RecordIndex(files_of(data_dir, "many_files"), "image", "label")
    assert len(index.read(0)) and len(os.listdir("/proc/self/fd")) == before
