"""Parquet files of images: copied into a TFDS set as they are, and every refusal."""

import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn import datasets

from tf_mskd.data import parquet_columns, parquet_files, parquet_set, prepare
from tf_mskd.data.decode import fit, read_image
from tf_mskd.data.record_index import RecordIndex
from tf_mskd.data.sources import load_source
from tf_mskd.data.stored_images import StoredImages
from tf_mskd.utils.errors import UserError

NAMES = ("temple", "flower", "leaf")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF")
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def pictures(count, start=0):
    """Encoded windows of two photographs, of five formats and two sizes."""
    photographs = datasets.load_sample_images().images
    contents = []
    for k in range(start, start + count):
        top, width = 7 * k, 40 + 8 * (k % 2)
        window = photographs[k % 2][top : top + 40, top : top + width]
        file = io.BytesIO()
        mode = "L" if k % 7 == 3 else "RGB"
        Image.fromarray(window).convert(mode).save(file, FORMATS[k % len(FORMATS)])
        contents.append(file.getvalue())
    return contents


def table(contents, labels, kind=None, names=NAMES, image="image", label="label"):
    """A table as hubs write it; without names no notes in the schema."""
    structs = [x if x is None else {"bytes": x, "path": "a.jpg"} for x in contents]
    columns = {
        image: pa.array(structs, IMAGE),
        label: pa.array(labels, kind or pa.int64()),
    }
    note = {
        image: {"_type": "Image"},
        label: {"_type": "ClassLabel", "names": list(names or ())},
    }
    made = pa.table(columns)
    if names is None:
        return made
    notes = json.dumps({"info": {"features": note}})
    return made.replace_schema_metadata({parquet_columns.NOTES: notes})


def write(root, tables, rows=3):
    for name, content in tables.items():
        path = root / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(content, path, row_group_size=rows)
    return root


def usual(**more):
    """Three training files and one of test, in the layout of hubs."""
    tables = {
        f"data/train-{k:05}-of-00003": table(
            pictures(7, 7 * k), [(k + row) % 3 for row in range(7)]
        )
        for k in range(3)
    }
    tables["data/test-00000-of-00001"] = table(pictures(4, 21), [2, 0, 1, 0])
    return {**tables, **more}


def pixels(contents, size=16):
    images = [read_image(io.BytesIO(content)) for content in contents]
    return np.stack([fit(image, size, size) for image in images])


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write(tmp_path_factory.mktemp("hub"), usual())


@pytest.fixture(scope="module")
def data_dir(archive, tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    said = prepare.prepare("photographs", path, archive)
    assert said.startswith("Wrote photographs/1.0.0") and "train 21, test 4" in said
    return path


def test_images_are_those_of_the_files_in_their_order(data_dir):
    decoded = load_source("photographs", data_dir, 16, memory="decoded")
    assert decoded.class_names == NAMES
    np.testing.assert_array_equal(decoded.train.images, pixels(pictures(21)))
    np.testing.assert_array_equal(decoded.test.images, pixels(pictures(4, 21)))
    expected = [(k + row) % 3 for k in range(3) for row in range(7)]
    np.testing.assert_array_equal(decoded.train.labels, expected)
    np.testing.assert_array_equal(decoded.test.labels, [2, 0, 1, 0])


def test_streamed_images_are_the_decoded_ones(data_dir):
    decoded = load_source("photographs", data_dir, 16, memory="decoded")
    streamed = load_source("photographs", data_dir, 16, memory="stream")
    for held, read in (
        (streamed.train, decoded.train),
        (streamed.test, decoded.test),
    ):
        assert isinstance(held.images, StoredImages)
        np.testing.assert_array_equal(held.images[:], read.images)
        np.testing.assert_array_equal(held.labels, read.labels)


def test_the_bytes_of_every_image_stay_as_they_are(data_dir):
    builder = tfds.builder("photographs", data_dir=data_dir)
    assert builder.info.file_format.value == "tfrecord"
    index = RecordIndex(builder.info.splits["train"].filepaths, "image", "label")
    assert [index.read(k) for k in range(len(index))] == pictures(21)


def test_the_order_stays_over_many_files_and_parts_on_disk(tmp_path, monkeypatch):
    """As of a set that is larger than TFDS' buffer and its files."""
    monkeypatch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 2000)
    number = np.arange(17 * 19)
    digits = load_source("digits").train.images[number, ..., 0]
    contents = []
    for digit in digits:
        file = io.BytesIO()
        Image.fromarray(digit).save(file, "PNG")
        contents.append(file.getvalue())
    made = table(contents, number % 3)
    write(tmp_path, {"train": made, "test": made}, rows=100)
    builder = parquet_set.ParquetSet("digits_in_parquet", tmp_path / "d", tmp_path)
    config = tfds.download.DownloadConfig(num_shards=17)
    builder.download_and_prepare(download_config=config)
    assert len(builder.info.splits["train"].filepaths) == 17
    for memory in ("decoded", "stream"):
        source = load_source("digits_in_parquet", tmp_path / "d", 8, memory=memory)
        images = np.asarray(source.train.images)
        np.testing.assert_array_equal(images, np.repeat(digits[..., None], 3, axis=3))
        np.testing.assert_array_equal(source.train.labels, number % 3)


def test_keys_are_spread_so_that_tfds_sorts_a_small_part_at_a_time(archive, tmp_path):
    builder = parquet_set.ParquetSet("spread", tmp_path, archive)
    paths = sorted((archive / "data").glob("train*"))
    labels = {path: np.zeros(7, int) for path in paths}
    keys = [key for key, _ in builder._generate_examples("train", "image", labels)]
    buckets = [tfds.core.shuffle.get_bucket_number(key, 1000) for key in keys]
    assert keys == sorted(set(keys))
    assert buckets == [1000 * k // 21 for k in range(21)]


def test_a_part_of_a_file_is_in_memory_at_a_time(tmp_path):
    content = np.random.default_rng(0).bytes(100_000)
    contents = [content[k:] + content[:k] for k in range(200)]
    write(tmp_path, {"train": table(contents, [0] * 200)}, rows=10)
    path = tmp_path / "train.parquet"
    before, most = pa.total_allocated_bytes(), 0
    for first, values in parquet_files.read_column(path, "image", 10):
        most = max(most, pa.total_allocated_bytes() - before)
        assert values.to_pylist() == contents[first : first + 10]
    assert path.stat().st_size > 10**7 and most < path.stat().st_size / 4


def prepared(root, tables, **options):
    """The source of tables without names, and its builder."""
    write(root / "hub", tables)
    prepare.prepare("own_set", root / "tfds", root / "hub", **options)
    return load_source("own_set", root / "tfds", 16)


def test_without_names_classes_are_numbers_up_to_the_largest_label(tmp_path):
    train = table(pictures(4), [0, 1, 1, 0], pa.uint8(), None, "img", "fine_label")
    test = table(pictures(2), [3, 0], pa.uint8(), None, "img", "fine_label")
    source = prepared(tmp_path, {"train/0000": train, "validation/0000": test})
    assert source.class_names == ("0", "1", "2", "3")
    np.testing.assert_array_equal(source.test.labels, [3, 0])


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_strings_become_classes_in_sorted_order(tmp_path, kind):
    tables = {
        "train-0": table(pictures(3), ["b", "c", "b"], kind, None),
        "train-1": table(pictures(1), ["a"], kind, None),
        "valid": table(pictures(2), ["c", "a"], kind, None),
    }
    source = prepared(tmp_path, tables)
    assert source.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(source.train.labels, [1, 2, 1, 0])
    np.testing.assert_array_equal(source.test.labels, [2, 0])


def test_columns_of_bytes_and_columns_that_are_chosen(tmp_path):
    def made(labels):
        contents = pa.array(pictures(len(labels)), pa.large_binary())
        columns = {"photo": contents, "mask": contents, "kind": labels, "id": labels}
        return pa.table(columns)

    tables = {"train": made([1, 0]), "test": made([1])}
    options = {"image_column": "photo", "label_column": "kind"}
    source = prepared(tmp_path, tables, **options)
    np.testing.assert_array_equal(source.train.images, pixels(pictures(2)))


def test_the_names_of_splits_are_read_from_files_or_folders(archive):
    paths = {
        "data/train-00000-of-00005": "train",
        "train/0000": "train",
        "default/partial-train/0001": "train",
        "my_set-training": "train",
        "val-00000-of-00001": "validation",
        "VALID/0": "validation",
        "data/validation_0": "validation",
        "test/0000": "test",
        "train/test-0": "test",
        "constraint": "",
        "data/0000": "",
    }
    for text, split in paths.items():
        path = archive.relative_to(archive) / f"{text}.parquet"
        assert parquet_files._split_of(path) == split, text


def test_a_test_split_without_classes_and_other_files_are_passed_over(tmp_path, capsys):
    tables = {
        "data/train-0": table(pictures(3), [0, 1, 2]),
        "data/validation-0": table(pictures(2), [2, 1]),
        "data/test-0": table(pictures(2), [-1, -1]),
        "data/unlabelled-0": table(pictures(2), [-1, -1]),
        ".cache/train-0": table(pictures(3), [0, 1, 2]),
    }
    source = prepared(tmp_path, tables)
    np.testing.assert_array_equal(source.test.labels, [2, 1])
    told = "Passed over, no split with classes: unlabelled-0.parquet, test-0.parquet"
    assert told in capsys.readouterr().out


# ---- refusals


def refused(root, tables, message, name="own_set", **options):
    """The set is refused, and nothing of it counts as prepared."""
    write(root / "hub", tables)
    with pytest.raises(UserError, match=message) as caught:
        prepare.prepare(name, root / "tfds", options.pop("at", root / "hub"), **options)
    assert "\n" not in str(caught.value)
    assert not list(root.glob("tfds/*/1.0.0")) and not list(root.rglob("incomplete*"))
    with pytest.raises(UserError, match="own_set"):
        load_source("own_set", root / "tfds", 16)


def changed(contents=None, labels=(0, 1, 2), **options):
    """The usual files, the second of which holds something else."""
    made = table(contents or pictures(3), labels, **options)
    return usual(**{"data/train-00001-of-00003": made})


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            changed(labels=[0, None, 1]),
            r"Row 1 of .*train-00001.* no label \('label' i",
        ),
        (changed(labels=[0, 1, 3]), "Row 2 of .*train-00001.* the label 3, .* 0 to 2"),
        (changed(labels=[0, 1, -1]), "Row 2 of .*train-00001.* the label -1, no class"),
        (changed([None, *pictures(2)]), r"Row 0 of .*00001.* no image \('image' is nu"),
        (
            changed([*pictures(2), b"no image"]),
            r"Cannot decode the image in row 2 of .*train-00001.*\(.*\); repair or rem",
        ),
        (changed([*pictures(2), b""]), "Cannot decode the image in row 2 of .*00001"),
        (changed(names=("a", "b", "c")), "00000.* and .*00001.* must have the same"),
        (
            changed(labels=[0.5, 1, 2], kind=pa.float64()),
            "'label' .*int.* it is double",
        ),
        (changed(image="picture"), "must have the same columns"),
    ],
)
def test_a_bad_file_or_row_is_named(tmp_path, tables, message):
    refused(tmp_path, tables, message)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0, 1, 2]}, r"Found no image column in .*got label \(int64\)"),
        ({"image": ["a", "b", "c"], "label": [0, 1, 2]}, "'image' .*bytes.*is string"),
        ({"image": pictures(3)}, r"Found no label column in .*got image \(binary\)"),
        (
            {"left": pictures(3), "right": pictures(3), "label": [0, 1, 2]},
            "be the images: left, right; choose one with --image_column",
        ),
        (
            {"image": pictures(3), "fine": [0, 1, 2], "coarse": [0, 1, 2]},
            "be the labels: fine, coarse; choose one with --label_column",
        ),
        ({"image": pictures(3), "id": [0, 1, 9]}, "numbers up to 9, of 3 training ima"),
        (
            {"image": pictures(3), "label": ["a", "b", " a"]},
            "lines of text that differ",
        ),
        ({"image": pictures(3), "label": ["a", "b", ""]}, "differ, got ''"),
        ({"image": pictures(3), "label": ["a", "b", "c\nd"]}, "differ, got .*c"),
        ({"image": pa.array([], pa.binary()), "label": []}, "'label' .*it is null"),
    ],
)
def test_columns_that_cannot_be_told_are_refused(tmp_path, columns, message):
    made = pa.table(columns)
    refused(tmp_path, {"train": made, "test": made}, message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_column": "imgae"}, "Unknown --image_column of .*mean 'image'"),
        ({"image_column": "label"}, "'label' .*as image, it is int64"),
        ({"label_column": "image"}, "'image' .*as label, it is struct"),
        ({"npz": "a.npz"}, "--npz is for images of one size"),
        ({"name": "cifar100"}, "--archive is for .*'cifar100' takes none"),
        ({"name": "nuclei"}, "--archive is for .*'nuclei' takes none"),
        ({"name": "folder"}, "'folder' needs no preparation"),
        ({"name": "My-Set"}, "--dataset=My-Set must be lower-case letters"),
        ({"at": "/no/such"}, "/no/such does not exist; set --archive"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, options, message):
    refused(tmp_path, usual(), message, **options)


@pytest.mark.parametrize("dataset", ["cifar100", "tiny_imagenet"])
def test_columns_of_another_kind_of_set_are_refused(tmp_path, dataset):
    archive = {"archive": "a.zip"} if dataset == "tiny_imagenet" else {}
    for name in ("image_column", "label_column"):
        with pytest.raises(UserError, match=f"are for parquet files.*'{dataset}' has"):
            prepare.prepare(dataset, tmp_path, **archive, **{name: "image"})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "Found no .parquet files in .*hub"),
        (["train-0"], "splits train and test .*; found train[.]"),
        (["test-0", "val-0"], "splits train and test .*; found test, val"),
        (["0000"], "found none, and 0000.parquet, whose split is not told"),
        (
            ["a/train-0", "b/train-0", "b/test-0"],
            r"'train' lie in several folders \(.*a, .*b\): set --archive to one",
        ),
    ],
)
def test_splits_that_cannot_be_told_are_refused(tmp_path, names, message):
    (tmp_path / "hub").mkdir()
    made = table(pictures(3), [0, 1, 2])
    refused(tmp_path, dict.fromkeys(names, made), message)


def test_one_file_is_one_split(tmp_path):
    at = tmp_path / "hub" / "data" / "test-00000-of-00001.parquet"
    refused(tmp_path, usual(), "found test[.]", at=at)
    at = tmp_path / "notes.txt"
    at.touch()
    refused(tmp_path, {}, "Found no .parquet files in .*notes.txt", at=at)


def test_splits_without_rows_or_classes_are_refused(tmp_path):
    empty, hidden = table([], []), table(pictures(2), [-1, -1])
    tables = usual(**{"data/test-00000-of-00001": empty})
    refused(tmp_path, tables, "Split 'test' of .* has no rows")
    tables = usual(**{"data/test-00000-of-00001": hidden})
    refused(tmp_path, tables, "Row 0 of .*test-00000.* has the label -1, no class")


@pytest.mark.parametrize("notes", [b"{", b"[" * 100_000])
def test_damaged_notes_are_refused(tmp_path, notes):
    made = table(pictures(3), [0, 1, 2], names=None)
    made = made.replace_schema_metadata({parquet_columns.NOTES: notes})
    tables = {"train": made, "test": made}
    refused(tmp_path, tables, "Names of classes in .*train.parquet cannot be read")


@pytest.mark.parametrize(
    "notes", [{}, [], {"info": 3}, {"info": {"features": {"label": {"names": [1]}}}}]
)
def test_notes_of_other_kinds_are_passed_over(notes):
    made = table(pictures(1), [0], names=None)
    metadata = {parquet_columns.NOTES: json.dumps(notes)}
    schema = made.replace_schema_metadata(metadata).schema
    assert parquet_columns.class_names(schema, "a", "label") is None
    assert parquet_columns.label_column(schema, "a") == "label"


def test_only_columns_that_are_noted_as_classes_may_be_labels():
    made = table(pictures(1), [0], label="species").append_column("id", [[7]])
    schema = made.schema.with_metadata(table([], [], label="species").schema.metadata)
    assert parquet_columns.label_column(schema, "a") == "species"
    assert parquet_columns.label_column(schema, "a", "id") == "id"


@pytest.mark.parametrize("damage", ["end", "begin", "middle", "empty"])
def test_a_damaged_file_is_named(tmp_path, damage):
    write(tmp_path / "hub", usual())
    path = tmp_path / "hub" / "data" / "train-00002-of-00003.parquet"
    content = path.read_bytes()
    path.write_bytes(
        {
            "end": content[: len(content) // 2],
            "begin": content[len(content) // 2 :],
            "middle": content[:4] + b"\xff" * 600 + content[604:],
            "empty": b"",
        }[damage]
    )
    told = r"Cannot (read parquet file|decode the image in row 0 of) .*train-00002"
    refused(tmp_path, {}, told)


def test_a_full_disk_is_told_before_anything_is_copied(tmp_path, monkeypatch):
    usage = type("Usage", (), {"total": 10, "free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    refused(
        tmp_path,
        usual(),
        "'own_set' needs .*10 bytes are free .*own_set: make room or choose",
    )


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_what_is_interrupted_counts_as_nothing_and_can_be_done_again(
    tmp_path, monkeypatch, error
):
    def check(path, first, contents):
        if "00002" in path.name:
            raise error

    write(tmp_path / "hub", usual())
    with monkeypatch.context() as patched:
        patched.setattr(parquet_set, "check_images", check)
        with pytest.raises((UserError, KeyboardInterrupt)):
            prepare.prepare("own_set", tmp_path / "tfds", tmp_path / "hub")
    command = "--dataset=own_set --archive=DIR --data_dir="
    with pytest.raises(UserError, match=f"not prepared in .*{command}"):
        load_source("own_set", tmp_path / "tfds", 16)
    assert not [path for path in tmp_path.rglob("tfds/*/*/*")]
    said = prepare.prepare("own_set", tmp_path / "tfds", tmp_path / "hub")
    assert said.startswith("Wrote own_set") and "train 21" in said


def test_the_command_line_writes_once_and_shows_progress(archive, tmp_path, capsys):
    flags = [f"--archive={archive}", f"--data_dir={tmp_path}", "--dataset=by_command"]
    flags += ["--image_column=image", "--label_column=label"]
    for expected in ("Wrote by_command/1.0.0", "Already prepared: by_command/1.0.0"):
        assert prepare.main(["prepare", *flags]) == 0
        captured = capsys.readouterr()
        assert expected in captured.out and "image/s" not in captured.err
    prepare.FLAGS["image_column"].unparse()
    prepare.FLAGS["label_column"].unparse()
    prepare.FLAGS["archive"].unparse()
    assert prepare.main(["prepare", *flags[1:3]]) == 0
    assert "Already prepared" in capsys.readouterr().out


def test_a_terminal_sees_a_bar(archive, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    prepare.prepare("seen", tmp_path, archive)
    told = capsys.readouterr().err
    assert "train: 100%" in told and "21/21" in told
