"""Which files a split consists of, and their bytes as they were when it was listed."""

import os
import pathlib
import typing
from collections.abc import Sequence

import numpy as np

from tf_mskd.utils.errors import UserError


class FileIndex:
    """Files in a fixed order, read by position; some 60 bytes of memory each.

    A file must stay as it was: its size and time of change are kept from the start.

    Args:
        paths: sequence of N paths, relative to `root` or absolute.
        root: path of the folder that they are told by.

    Raises:
        UserError: if one cannot be looked at.

    Example:
        >>> import tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "a").write_bytes(b"pixels")
        >>> FileIndex([folder / "a"], folder).read(0)
        b'pixels'
    """

    def __init__(self, paths: Sequence[str | os.PathLike], root: str | os.PathLike):
        self._root = os.fsencode(root)
        names, stamps = [], np.empty((len(paths), 2), np.int64)
        for position, path in enumerate(paths):
            name = os.path.join(self._root, os.fsencode(path))
            stamps[position] = _stamp(_looked_at(os.stat, name))
            names.append(os.path.relpath(name, self._root))
        # one block of bytes, not a million objects
        self._names = np.array(names) if names else np.empty(0, "S1")
        self._stamps = stamps

    def __len__(self) -> int:
        return len(self._names)

    def path(self, position: int) -> pathlib.Path:
        """Returns the path of a file."""
        name = os.path.join(self._root, self._names[position])
        return pathlib.Path(os.fsdecode(name))

    def read(self, position: int) -> bytes:
        """Returns the content of a file.

        Raises:
            UserError: if it is gone, cannot be read, or is no longer the file that was
                listed.
        """
        path = os.path.join(self._root, self._names[position])
        with _looked_at(lambda p: open(p, "rb"), path) as file:
            if _stamp(os.fstat(file.fileno())) != tuple(self._stamps[position]):
                raise UserError(
                    f"Image {os.fsdecode(path)} has changed since the run began to "
                    "read it: put the old file back, or start a new run."
                )
            return file.read()


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _looked_at(look: typing.Callable, path: bytes) -> typing.Any:
    try:
        return look(path)
    except OSError as error:
        raise UserError(
            f"Image {os.fsdecode(path)} cannot be read ({error.strerror}); it was "
            "there when the folder was listed: put it back."
        ) from error
