"""Splits of prepared TFDS sets whose images stay encoded in their files."""

import os
import typing

import numpy as np

from tf_mskd.data.arrays import Split
from tf_mskd.data.file_index import FileIndex
from tf_mskd.data.index_file import kept
from tf_mskd.data.reading import Reading
from tf_mskd.data.record_index import RecordIndex
from tf_mskd.data.stored_images import StoredImages


class DataSourceIndex:
    """The images of a split in ArrayRecord files, which are read by position.

    Args:
        builder: TFDS builder of a prepared set.
        key: str, the split.
        label_key: str, feature of one class.
        index_file: path that the labels are kept at, see `index_file.kept`: to find
            them all images are read. Or None.

    Attributes:
        labels: int32 [N].
    """

    def __init__(
        self,
        builder: typing.Any,
        key: str,
        label_key: str,
        index_file: str | os.PathLike | None = None,
    ):
        import tensorflow_datasets as tfds

        skipped = {"image": tfds.decode.SkipDecoding()}
        self._source = builder.as_data_source(key, decoders=skipped)
        self._key = key
        paths = list(map(os.path.abspath, builder.info.splits[key].filepaths))
        state = FileIndex(paths, os.path.dirname(paths[0])).state()
        found = kept(index_file, state, lambda: {"labels": self._labels(label_key)})
        self.labels = found["labels"]

    def _labels(self, label_key):
        labels = (row[label_key] for row in self._source)
        return np.fromiter(labels, np.int32, len(self._source))

    def __len__(self) -> int:
        return len(self._source)

    def name(self, position: int) -> str:
        """Returns what an image is called in a message."""
        return f"{position} of split {self._key!r}"

    def read(self, position: int) -> bytes:
        """Returns the encoded image."""
        return self._source[position]["image"]


def stored_split(
    builder: typing.Any,
    key: str,
    label_key: str,
    image_shape: tuple[int, ...],
    reading: Reading,
) -> Split:
    """A split whose images are decoded when a batch asks for them.

    Args:
        builder: TFDS builder of a prepared set, in TFRecord or ArrayRecord files.
        key: str, the split.
        label_key: str, feature of one class.
        image_shape: (H, W, C) of every image.
        reading: `Reading`.

    Returns:
        `Split`; the order is that of the decoded one.

    Raises:
        OSError, ValueError: for damaged files.
    """
    index: DataSourceIndex | RecordIndex
    index_file = reading.index_dir and os.path.join(reading.index_dir, f"{key}.npz")
    if builder.info.file_format.value == "array_record":
        index = DataSourceIndex(builder, key, label_key, index_file)
    else:
        paths = builder.info.splits[key].filepaths
        in_order = builder.info.disable_shuffling
        index = RecordIndex(paths, "image", label_key, index_file, in_order)
    images = StoredImages(index, index.labels, image_shape, reading)
    return Split(images, {"label": index.labels})
