"""What was found by looking through large files, kept for the next start."""

import os
import pathlib
import typing
import zipfile
from collections.abc import Callable, Mapping

import numpy as np

from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError

Arrays = Mapping[str, np.ndarray]


def kept(
    path: str | os.PathLike | None, state: Arrays, make: Callable[[], Arrays]
) -> Arrays:
    """Returns the arrays that `make` finds in some files, read from `path` if there.

    Those at `path` count while the files have the names, sizes and times of then;
    otherwise they are made anew, and replaced. Where they cannot be kept that is said,
    and nothing else is lost.

    Args:
        path: path of an `.npz` file, or None to keep nothing.
        state: dict of `FileIndex.state`, of the files that they are found in.
        make: function without arguments -> dict, str -> array.

    Example:
        >>> kept(None, {}, lambda: {"labels": np.arange(2)})
        {'labels': array([0, 1])}
    """
    if path is None:
        return make()
    found = _read(pathlib.Path(path), state)
    if found is None:
        found = make()
        _write(pathlib.Path(path), {**found, **state})
    return found


def _read(path, state):
    """The arrays of the file if it is of these files, else None; says why."""
    if not path.exists():
        return None
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            known = dict(arrays)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return _again(path, "is damaged")
    if not all(_equal(known.pop(name, None), value) for name, value in state.items()):
        return _again(path, "is of other files, or of what they were before")
    return known


def _equal(known: typing.Any, value: np.ndarray) -> bool:
    return known is not None and np.array_equal(known, value)


def _again(path, reason):
    print(f"index {path} {reason}: made anew", flush=True)


def _write(path, arrays):
    try:
        files.make_folder(path.parent)
        with files.replacing(path) as temporary:
            np.savez(temporary, **arrays)
    except UserError as error:
        print(f"{error} Until then each start looks through the files.", flush=True)
