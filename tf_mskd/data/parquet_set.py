"""A data set of one's own in parquet files, as model hubs keep it, copied into TFDS'.

To read one image of a parquet file, all images of its row group are decompressed. So
the images are copied once, still encoded, into record files, in which each is found.
"""

import io
import pathlib
import re
import sys
import typing

import tensorflow_datasets as tfds
import tqdm

from tf_mskd.data.decode import in_parallel, read_image
from tf_mskd.data.parquet_classes import read_classes
from tf_mskd.data.parquet_columns import class_names, image_column, label_column
from tf_mskd.data.parquet_files import (
    find_splits,
    first_null,
    num_bytes,
    read_column,
    schema_of,
)
from tf_mskd.data.tfds_sets import is_registered
from tf_mskd.utils import files
from tf_mskd.utils.choices import ALWAYS_DECODED, ARCHIVED_SETS
from tf_mskd.utils.errors import UserError

ROWS = 64  # images read at a time
KEYS = 2**128  # TFDS sorts by keys below


class ParquetSet(  # type: ignore[call-arg]  # of a base whose types are not known
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Images of one class each, in the order of the rows of their parquet files.

    The bytes of every image stay as they are, in any format that Pillow decodes; the
    library reads them by `decode.read_image`. TFDS' own decoder reads JPEG, PNG, BMP
    and GIF alone.

    Args:
        name: str, of the set: lower case, digits and underscores.
        data_dir: path to write below.
        archive: path of a folder of parquet files, or of one.
        image_column, label_column: str, or None: see `parquet_columns`.

    Raises:
        UserError: for a name that is taken, or no name.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    code_path = None  # as in tiny_imagenet.py

    def __init__(
        self,
        name: str,
        data_dir: str,
        archive: str,
        image_column: str | None = None,
        label_column: str | None = None,
    ):
        check_name(name)
        self.name = name
        self._archive = archive
        self._wanted = {"image": image_column, "label": label_column}
        super().__init__(data_dir=data_dir)

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3))
        # Classes are named when the files are opened.
        features = {"image": image, "label": tfds.features.ClassLabel()}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Images copied from parquet files.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        splits, others = find_splits(self._archive)
        image, label, names = _columns(splits, self._wanted)
        classes = read_classes(splits, label, names)
        for split in classes.hidden:
            others += splits.pop(split)
        if others:
            listed = ", ".join(path.name for path in others)
            print(f"Passed over, no split with classes: {listed}", flush=True)
        paths = [path for split in splits.values() for path in split]
        files.check_space(
            self.data_path.parent,
            sum(map(num_bytes, paths)),
            f"Data set {self.name!r}",
            "make room or choose another --data_dir",
        )
        self.info.features["label"].names = classes.names
        return {
            split: self._generate_examples(
                split, image, {path: classes.labels[path] for path in paths}
            )
            for split, paths in splits.items()
        }

    def _generate_examples(self, split, column, labels):
        total, number = sum(map(len, labels.values())), 0
        with tqdm.tqdm(
            total=total, unit="image", desc=split, disable=not sys.stderr.isatty()
        ) as bar:
            for path, first, contents in _parts(labels, column):
                for row, content in enumerate(contents, start=first):
                    # spread, so that TFDS sorts a small part at a time
                    key = number * KEYS // total
                    label = int(labels[path][row])
                    yield key, {"image": io.BytesIO(content), "label": label}
                    number += 1
                bar.update(len(contents))


def check_name(name: str) -> None:
    """Raises `UserError` unless a set of one's own may be so called."""
    known = {*ALWAYS_DECODED, *ARCHIVED_SETS, "folder"}
    if name in known or is_registered(name):
        raise UserError(
            f"--archive is for {', '.join(ARCHIVED_SETS)} and for parquet files under "
            f"a name of their own; {name!r} takes none: choose another --dataset."
        )
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(
            f"--dataset={name} must be lower-case letters, digits and underscores to "
            "name a set of parquet files."
        )


def check_images(
    path: pathlib.Path, first: int, contents: typing.Sequence[bytes]
) -> None:
    """Raises `UserError` unless every image of some rows decodes.

    Args:
        path: of the parquet file.
        first: int, number of the first of the rows.
        contents: sequence of bytes, the encoded images.
    """

    def check(position):
        try:
            read_image(io.BytesIO(contents[position]))
        except ValueError as error:
            raise UserError(
                f"Cannot decode the image in row {first + position} of {path} "
                f"({error}); repair or remove it."
            ) from error

    in_parallel(check, len(contents))


def _columns(splits, wanted):
    """(column of images, column of classes, names of classes) of all files."""
    found = {}
    for path in (path for paths in splits.values() for path in paths):
        schema = schema_of(path)
        image = image_column(schema, path, wanted["image"])
        label = label_column(schema, path, wanted["label"])
        found[path] = image, label, class_names(schema, path, label)
    first = next(iter(found))
    for path, columns in found.items():
        if columns != found[first]:
            raise UserError(
                f"{first} and {path} must have the same columns of images and classes "
                "and the same names of classes; set --archive to one data set."
            )
    return found[first]


def _parts(paths, column):
    """(path, number of the first row, images) of rows in order, a few at a time."""
    for path in paths:
        for first, values in read_column(path, column, ROWS):
            if values.null_count:
                row = first + first_null(values)
                raise UserError(
                    f"Row {row} of {path} has no image ({column!r} is null): remove it."
                )
            contents = values.to_pylist()
            check_images(path, first, contents)
            yield path, first, contents
