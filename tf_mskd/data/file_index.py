"""Which files a split consists of, and their bytes as they were when first seen."""

import os
from collections.abc import Sequence

import numpy as np

from tf_mskd.utils.errors import UserError


class FileIndex:
    """Files in a fixed order, read by position.

    It takes the longest name and 16 bytes of memory a file. A file must stay what it
    was when it was seen first: its size and the time of its last change are kept.

    Args:
        paths: sequence of N paths below `root`.
        root: path of a folder.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "a").write_bytes(b"pixels")
        >>> FileIndex([str(folder / "a")], folder).read(0)
        b'pixels'
    """

    def __init__(self, paths: Sequence[str], root: str | os.PathLike):
        self._root = os.path.join(os.fsencode(root), b"")
        longest = max((len(os.fsencode(path)) for path in paths), default=0)
        longest = max(longest - len(self._root), 1)
        names = (os.fsencode(path).removeprefix(self._root) for path in paths)
        # one block of bytes, not a million objects
        self._names = np.fromiter(names, f"S{longest}", len(paths))
        self._stamps = np.full((len(paths), 2), -1, np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, position: int) -> str:
        """Returns the path of a file."""
        return os.fsdecode(self._root + self._names[position])

    def state(self) -> dict[str, np.ndarray]:
        """Sees every file; returns the names, and sizes and times of last change.

        Raises:
            OSError: for a file that is not there.
        """
        for position, name in enumerate(self._names):
            self._check_unchanged(position, os.stat(self._root + name))
        return {"names": self._names, "stamps": self._stamps}

    def read(self, position: int, start: int = 0, size: int = -1) -> bytes:
        """Returns the content of a file, or a part of it.

        Args:
            position: int, which file.
            start: int, first byte.
            size: int, bytes from there; -1 reads to the end.

        Raises:
            UserError: if it is gone, cannot be read, or is no longer the file that was
                seen before.
        """
        path = self._root + self._names[position]
        try:
            with open(path, "rb") as file:
                self._check_unchanged(position, os.fstat(file.fileno()))
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise UserError(
                f"Cannot read {self.name(position)} ({error.strerror}), which was "
                "there when the run began: put it back."
            ) from error

    def _check_unchanged(self, position, status):
        stamp = status.st_size, status.st_mtime_ns
        if self._stamps[position, 0] < 0:
            self._stamps[position] = stamp
        elif tuple(self._stamps[position]) != stamp:
            raise UserError(
                f"{self.name(position)} has changed since this run read it first: put "
                "the old file back, or start a new run."
            )
