"""The classes of the images in parquet files, read and checked before any image is."""

import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from tf_mskd.data.parquet_files import first_null, read_column
from tf_mskd.utils.errors import UserError

ROWS = 65536  # labels read at a time
HIDDEN = -1  # the label of images whose classes are not published


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of all images.

    Args:
        names: tuple of str, of every class.
        labels: {path: int64 [rows], numbers of the classes of a file}.
        hidden: tuple of str, splits that are left out: all their labels are -1.
    """

    names: tuple[str, ...]
    labels: Mapping[pathlib.Path, np.ndarray]
    hidden: tuple[str, ...] = ()


def read_classes(
    splits: Mapping[str, Sequence[pathlib.Path]],
    column: str,
    names: tuple[str, ...] | None = None,
) -> Classes:
    """Reads the label column of every file.

    Strings become classes in sorted order. Without names, class k is called str(k), and
    there are as many classes as the largest label of all splits tells.

    Args:
        splits: {"train", "validation" or "test": paths}.
        column: str, of integers or strings.
        names: tuple of str, of the classes of integers, or None: not known.

    Returns:
        `Classes`. A validation or test split whose labels are all -1, as hubs hold
        test splits whose classes are not published, is left out where the other one
        is there.

    Raises:
        UserError: a label that is null or no class, a split without rows, or names that
            are no list of classes.
    """
    texts: dict[str, int] = {}
    labels = {
        path: _labels(path, column, texts)
        for paths in splits.values()
        for path in paths
    }
    for split, paths in splits.items():
        if not sum(len(labels[path]) for path in paths):
            raise UserError(f"Split {split!r} of {paths[0].parent} has no rows.")
    hidden = _hidden(splits, labels)
    labels = {
        path: labels[path]
        for split, paths in splits.items()
        if split not in hidden
        for path in paths
    }
    if texts:
        names, labels = _sorted(texts, labels)
    elif names is None:
        names = _numbered(labels, column, sum(len(labels[p]) for p in splits["train"]))
    for path, values in labels.items():
        _check_range(path, values, len(names))
    return Classes(_checked(names, column), labels, hidden)


def _labels(path, column, texts):
    """int64 [rows] of a file; of strings the numbers that `texts` gives them."""
    parts = [np.empty(0, np.int64)]
    for first, values in read_column(path, column, ROWS):
        if values.null_count:
            row = first + first_null(values)
            raise UserError(
                f"Row {row} of {path} has no label ({column!r} is null): remove it."
            )
        if pa.types.is_integer(values.type):
            parts.append(values.to_numpy(zero_copy_only=False).astype(np.int64))
        else:
            found = (texts.setdefault(x, len(texts)) for x in values.to_pylist())
            parts.append(np.fromiter(found, np.int64, len(values)))
    return np.concatenate(parts)


def _hidden(splits, labels):
    held_out = [split for split in splits if split != "train"]
    hidden = tuple(
        split
        for split in held_out
        if all((labels[path] == HIDDEN).all() for path in splits[split])
    )
    return hidden if len(hidden) < len(held_out) else ()


def _sorted(texts, labels):
    names = tuple(sorted(texts))
    number = {name: k for k, name in enumerate(names)}
    order = np.array([number[text] for text in texts])
    return names, {path: order[values] for path, values in labels.items()}


def _numbered(labels, column, num_images):
    largest = max(values.max(initial=0) for values in labels.values())
    if largest >= num_images:
        raise UserError(
            f"Column {column!r} has numbers up to {largest}, of {num_images} training "
            "images: choose the column of their classes with --label_column."
        )
    return tuple(map(str, range(largest + 1)))


def _check_range(path, values, num_classes):
    wrong = np.flatnonzero((values < 0) | (values >= num_classes))
    if len(wrong):
        row = wrong[0]
        raise UserError(
            f"Row {row} of {path} has the label {values[row]}, no class: expected 0 to "
            f"{num_classes - 1}; leave out images without a class."
        )


def _checked(names, column):
    """Names as TFDS keeps them, one a line without blanks around it."""
    names = tuple(name.strip() for name in names)
    for name, count in collections.Counter(names).items():
        if count > 1 or len(name.splitlines()) != 1:
            raise UserError(
                f"Names of the classes of column {column!r} must be lines of text that "
                f"differ, got {name!r}: choose another with --label_column."
            )
    return names
