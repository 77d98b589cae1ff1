"""Where the images of TFRecord files lie: their bytes by position, and their labels.

To find them the files are mapped into memory one after another, and of an example only
what lies around its images is looked at: labels of a million images cost seconds, not
the reading of all pixels.
"""

import contextlib
import itertools
import mmap
import os
import struct
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import tqdm

from tf_mskd.data.file_index import FileIndex
from tf_mskd.data.index_file import kept

LENGTH = struct.Struct("<Q")  # of a record; a checksum of 4 bytes follows, and the data
AHEAD, BEHIND = 12, 4  # bytes around the data of a record
CYCLE = BLOCK = 16  # of TFDS' order: so many files in turn, so many records of each


class RecordIndex:
    """The images of a split's TFRecord files, in the order in which TFDS reads them.

    It takes 24 bytes of memory an image, and opens a file when an image of it is read.

    Args:
        paths: sequence of paths of the files, all in one folder.
        image_key: str, feature of one bytes value.
        label_key: str, feature of one int64 value.
        index_file: path that what was found is kept at, see `index_file.kept`, or None.
        in_order: bool, whether TFDS reads one file after another, as it does where
            the set was written in a fixed order (`info.disable_shuffling`).

    Attributes:
        labels: int32 [N].

    Raises:
        ValueError: for a damaged file, or an example without these features.
        OSError: for a file that cannot be opened.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike],
        image_key: str,
        label_key: str,
        index_file: str | os.PathLike | None = None,
        in_order: bool = False,
    ):
        self._paths = [os.path.abspath(os.fspath(path)) for path in paths]
        root = os.path.dirname(self._paths[0]) if self._paths else "."
        self._files = FileIndex(self._paths, root)
        state = self._files.state()  # an image is read from the files as they are now
        keys = image_key.encode(), label_key.encode()
        cycle = 1 if in_order else CYCLE
        found = kept(index_file, state, lambda: _find(self._paths, *keys, cycle))
        self._file_of, self._spans = found["files"], found["spans"]
        self.labels = found["labels"]

    def __len__(self) -> int:
        return len(self._file_of)

    def name(self, position: int) -> str:
        """Returns what an image is called in a message."""
        return f"{position} of {self._paths[self._file_of[position]]}"

    def read(self, position: int) -> bytes:
        """Returns the encoded image.

        Raises:
            UserError: if its file is gone or has changed.
        """
        start, end = self._spans[position].tolist()
        return self._files.read(int(self._file_of[position]), start, end - start)


def _find(paths, image_key, label_key, cycle):
    """The images of all files in TFDS' order: files, spans (start, end) and labels."""
    found = []
    bar = tqdm.tqdm(
        paths,
        "looking for images",
        unit="file",
        leave=False,
        disable=len(paths) == 1 or not sys.stderr.isatty(),
    )
    for path in bar:
        with _mapped(path) as data:
            rows = np.array(list(_images(data, image_key, label_key)), np.int64)
            found.append(rows.reshape(-1, 3))
    order = list(interleaved(list(map(len, found)), cycle))
    order = np.array(order, np.int32).reshape(-1, 2)
    first = np.cumsum([0, *map(len, found)])
    rows = np.concatenate(found)[first[order[:, 0]] + order[:, 1]]
    files, labels = order[:, 0].copy(), rows[:, 2].astype(np.int32)
    return {"files": files, "spans": rows[:, :2].copy(), "labels": labels}


def interleaved(counts: Sequence[int], cycle: int = CYCLE) -> Iterator[tuple[int, int]]:
    """The order of records over files: 16 files in turn, 16 records of each.

    A file that ends leaves its turn to the next one; its place is taken by a new file
    when its turn comes again.

    Args:
        counts: sequence of int, records of every file.
        cycle: int >= 1, so many files in turn; 1 is one file after another.

    Yields:
        (file, record) of every record.

    Example:
        >>> [file for file, _ in interleaved([17, 2])] == [0] * 16 + [1] * 2 + [0]
        True
    """
    waiting = iter(range(len(counts)))
    places: list[Iterator | None] = [None] * cycle
    left = sum(counts)
    while left:
        for slot in range(cycle):
            if places[slot] is None:
                places[slot] = _records(next(waiting, None), counts)
            block = list(itertools.islice(places[slot] or (), BLOCK))
            yield from block
            left -= len(block)
            if len(block) < BLOCK:
                places[slot] = None


def _records(file, counts):
    return None if file is None else iter([(file, row) for row in range(counts[file])])


@contextlib.contextmanager
def _mapped(path):
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            yield b""  # which cannot be mapped
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def _images(data, image_key, label_key):
    """(start of the image, its end, label) of every record."""
    start = 0
    while start < len(data):
        if start + AHEAD > len(data):
            raise ValueError(f"it ends within a record, at byte {start}")
        (length,) = LENGTH.unpack_from(data, start)
        end = start + AHEAD + length
        if end + BEHIND > len(data):
            raise ValueError(f"it ends within a record, at byte {start}")
        features = dict(_features(data, start + AHEAD, end))
        if not {image_key, label_key} <= set(features):
            raise ValueError(f"the record at byte {start} has no image or no label")
        image = _bytes_value(data, *features[image_key])
        yield *image, _int_value(data, *features[label_key])
        start = end + BEHIND


# What follows reads protocol buffers: a field is a number, a kind and, of kind 2, so
# many bytes. An Example is {1: Features}, Features {1: entries}, an entry {1: key,
# 2: Feature}, a Feature {1: bytes list} or {3: list of int64}, a list {1: values}.


def _features(data, start, end):
    """(key, (start, end) of its Feature) of every feature of an Example."""
    for number, *span in _fields(data, start, end):
        if number == 1:
            for _, *entry in _fields(data, *span):
                parts = {number: part for number, *part in _fields(data, *entry)}
                yield data[slice(*parts[1])], tuple(parts[2])


def _bytes_value(data, start, end):
    for number, *values in _fields(data, start, end):
        if number == 1:
            for _, *span in _fields(data, *values):
                return span
    raise ValueError("an image has no bytes")


def _int_value(data, start, end):
    for number, *values in _fields(data, start, end):
        if number == 3:
            for _, first, last in _fields(data, *values):
                value, first = _varint(data, first, last)
                if first == last:
                    return value
    raise ValueError("an image has no label, or several")


def _fields(data, start, end):
    """(number, start, end) of the content of every field of a message."""
    while start < end:
        tag, start = _varint(data, start, end)
        kind, after = tag & 7, start
        if kind == 2:
            length, start = _varint(data, start, end)
            after = start + length
        elif kind == 0:
            _, after = _varint(data, start, end)
        elif kind in (1, 5):
            after = start + (8 if kind == 1 else 4)
        if kind in (3, 4, 6, 7) or after > end:
            raise ValueError(f"the message at byte {start} is damaged")
        yield tag >> 3, start, after
        start = after


def _varint(data, start, end):
    value = shift = 0
    while start < end and shift < 64:
        byte = data[start]
        start += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, start
        shift += 7
    raise ValueError(f"the number at byte {start} is damaged")
