"""A teacher's vectors on disk, one row for each view of each example.

Two files an output: `exit_4.rows`, uint16 [views, examples, words], and `exit_4.sums`,
uint64 [views, examples], the CRC-32 of key and row with bit 32 set, or 0 where the row
is missing. Both are sparse: what is not filled takes no space. A row is written before
its sum, so a killed process leaves whole rows, and a row that was damaged, torn or
moved does not pass for another.
"""

import contextlib
import itertools
import math
import os
import pathlib
import time
import typing
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from tf_mskd.teacher_cache.encoding import TopRows, WholeRows
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.lock import open_lock, take_lock

FILLED = 2**32


class TeacherCache:
    """The rows of one teacher under one augmentation; several processes may share it.

    Processes that write the same row at once leave one of both, or none: a sum that is
    not that of its row counts as missing.

    Args:
        folder: str or path; created if it is missing.
        identity: dict, str -> JSON value, all that the rows depend on. Kept in
            `cache.json`; another identity is refused.
        sizes: dict, output name -> int, length of its vector. Outputs new to the folder
            are added to it.
        views: int > 0, different augmentations of each example.
        examples: int > 0, size of the training split.
        top_k: int, largest logits to keep of each vector; 0 keeps all values.
        temperature: float > 0, at which the others keep their share; see `TopRows`.

    Raises:
        UserError: if the folder holds another teacher's rows or is damaged, or the disk
            has no room for the files that it lacks.

    Example:
        >>> import tempfile, numpy as np
        >>> folder = tempfile.mkdtemp()
        >>> cache = TeacherCache(folder, {}, {"exit_1": 3}, views=2, examples=5)
        >>> cache.write(1, [4], {"exit_1": np.array([[0.5, 1.0, 2.0]])})
        >>> cache.missing(1, np.arange(5))
        array([0, 1, 2, 3])
        >>> cache.read(1, np.array([4]))["exit_1"]
        array([[0.5, 1. , 2. ]], dtype=float16)
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        identity: dict[str, typing.Any],
        sizes: dict[str, int],
        *,
        views: int,
        examples: int,
        top_k: int = 0,
        temperature: float = 1.0,
    ):
        self.folder = files.make_folder(folder, "teacher cache")
        self.sizes, self.views = sizes, views
        layout = {"views": views, "examples": examples, "top_k": top_k}
        if top_k and temperature != 1:  # rows of all logits are of any
            identity = {**identity, "temperature": temperature}
        self._shape = (views, examples)
        make = (lambda size: TopRows(size, top_k, temperature)) if top_k else WholeRows
        self._codecs = {name: make(size) for name, size in sizes.items()}
        with self.locked(name="lock_to_open", is_told=False):
            self._check_identity({"format": 1, **identity, **layout})
            self._check_space()
            self._rows = {n: self._open(n, "rows") for n in sizes}
            self._sums = {n: self._open(n, "sums") for n in sizes}

    def _check_identity(self, identity):
        path = self.folder / "cache.json"
        if not path.exists():
            if any(self.folder.glob("*.rows")):
                raise UserError(
                    f"Teacher cache {self.folder} has rows but no cache.json to "
                    "identify their teacher: delete it, or use another --teacher_cache."
                )
            self._check_space()  # else the folder would be bound to what it cannot hold
            files.write_json(path, identity)
        known = files.read_json(path)
        if not isinstance(known, dict):
            raise UserError(f"{path} is damaged: delete {self.folder}.")
        differences = [
            f"{key} (there {_short(known.get(key))}, here {_short(identity.get(key))})"
            for key in {**identity, **known}
            if known.get(key) != identity.get(key)
        ]
        if differences:
            raise UserError(
                f"Teacher cache {self.folder} was made for another "
                f"{', '.join(differences)}: use another --teacher_cache, or delete it."
            )

    def _open(self, name, kind):
        """A read-only memory map of one file, created if it is missing."""
        shape, dtype = self._layout(name, kind)
        path, size = self._path(name, kind), self._size(name, kind)
        if kind == "rows" and not path.exists() and self._path(name, "sums").exists():
            raise UserError(
                f"{path} is missing but its checksum file exists: delete {self.folder}."
            )
        if not path.exists():
            with files.replacing(path) as temporary:
                with open(temporary, "wb") as file:
                    file.truncate(size)
        if path.stat().st_size != size:
            raise UserError(
                f"{path} is damaged: it has {path.stat().st_size} bytes instead of "
                f"{size}. Delete {self.folder}; it will be filled again."
            )
        return np.memmap(path, dtype, "r", shape=shape)

    def _check_space(self):
        """Refuses to add files that the disk could not hold once they are full."""
        every = itertools.product(self.sizes, ("rows", "sums"))
        new = [file for file in every if not self._path(*file).exists()]
        files.check_space(
            self.folder,
            sum(self._size(*file) for file in new),
            f"Teacher cache of {self._shape[0]} views of {self._shape[1]} images",
            "lower --cached_augmentations, set or lower --cache_top_k, or put "
            "--teacher_cache on another disk",
        )

    def _layout(self, name, kind):
        """The shape and the type of a file."""
        if kind == "sums":
            return self._shape, np.uint64
        return (*self._shape, self._codecs[name].words), np.uint16

    def _size(self, name, kind):
        shape, dtype = self._layout(name, kind)
        return math.prod(shape) * np.dtype(dtype).itemsize

    def _path(self, name, kind):
        return self.folder / f"{name}.{kind}"

    @contextlib.contextmanager
    def locked(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        name: str = "lock",
        is_told: bool = True,
    ) -> Iterator[bool]:
        """Holds a lock of the folder in a with block: each row is computed once.

        Args:
            should_stop: function -> bool, called each half second of waiting.
            name: str, file of the lock; that of a `Part` locks its range alone.
            is_told: bool, whether waiting for the lock prints a line.

        Yields:
            bool, False if `should_stop` ended the waiting: the lock is not held.
        """
        try:
            lock = open_lock(self.folder / name)
        except OSError as error:
            raise UserError(
                f"Cannot write to teacher cache {self.folder}: {error.strerror}."
            ) from None
        try:
            yield _wait_for(lock, self.folder, should_stop, is_told)
        finally:
            os.close(lock)

    def missing(self, view: int, ids: np.ndarray) -> np.ndarray:
        """Returns the positions among `ids` (int64 [n]) that lack a row of a view.

        Every row's checksum is verified: damaged rows count as missing, and their
        number is printed in one line.
        """
        ids = np.asarray(ids, np.int64)
        good = np.ones(len(ids), bool)
        damaged = 0
        for name in self.sizes:
            sums = self._sums[name][view, ids]
            filled = np.flatnonzero(sums)
            true = _checksums(view, ids[filled], self._rows[name][view, ids[filled]])
            wrong = filled[sums[filled] != true]
            good &= sums != 0
            good[wrong] = False
            damaged += len(wrong)
        if damaged:
            print(
                f"teacher cache {self.folder}: {damaged} damaged rows, computed again"
            )
        return ids[~good]

    def filled(self, view: int, ids: np.ndarray) -> np.ndarray:
        """Returns the positions among `ids` that have a row of a view, unverified."""
        sums = [self._sums[name][view, ids] for name in self.sizes]
        return np.asarray(ids)[np.all(sums, axis=0)]

    def write(self, view: int, ids: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
        """Writes rows; call it within `locked`.

        Args:
            view: int in [0, views).
            ids: int [n], positions in the training split.
            outputs: dict, output name -> float [n, size].

        Raises:
            UserError: if the disk is full, or float16 cannot hold the values.
        """
        ids = np.asarray(ids, np.int64)
        try:
            for name in self.sizes:
                rows = self._codecs[name].encode(outputs[name])
                _write_rows(self._path(name, "rows"), self._at(view, ids), rows)
                sums = _checksums(view, ids, rows)[:, None]
                _write_rows(self._path(name, "sums"), self._at(view, ids), sums)
        except OSError as error:
            raise UserError(
                f"Cannot write to teacher cache {self.folder}: {error.strerror}. "
                "Its rows are unchanged. Fix the problem and run the same command "
                "again."
            ) from None

    def read(self, view: int | np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Returns stored rows: dict, output name -> float16 [n, size].

        Args:
            view: int in [0, views), or one for each position, int [n].
            ids: int [n], positions in the training split.
        """
        return {
            name: codec.decode(self._rows[name][view, ids])
            for name, codec in self._codecs.items()
        }

    def through(self, name: str, values: np.ndarray) -> np.ndarray:
        """Returns float [n, size] as the cache would return them, float16."""
        codec = self._codecs[name]
        return codec.decode(codec.encode(values))

    def bytes_per_view(self) -> int:
        """Returns the disk space of one full view, in bytes."""
        words = sum(codec.words for codec in self._codecs.values())
        return self._shape[1] * (2 * words + 8 * len(self.sizes))

    def _at(self, view, ids):
        return view * self._shape[1] + ids


def _write_rows(path, positions, rows):
    """Writes rows at positions; through a map a full disk would be a signal."""
    with open(path, "r+b", buffering=0) as file:
        for position, row in zip(positions.tolist(), rows, strict=True):
            os.pwrite(file.fileno(), row.tobytes(), position * row.nbytes)


def _checksums(view, ids, rows):
    """uint64 [n]: CRC-32 of (view, position, row) with bit 32 set."""
    keys = np.stack([np.full(len(ids), view, np.int64), ids], axis=1)
    sums = [
        zlib.crc32(row, zlib.crc32(key))
        for key, row in zip(keys, np.ascontiguousarray(rows), strict=True)
    ]
    return np.array(sums, np.uint64) + np.uint64(FILLED)


def _wait_for(lock, folder, should_stop, is_told):
    while not should_stop():
        try:
            if take_lock(lock):
                return True
        except OSError as error:  # of disks without locks
            raise UserError(
                f"Cannot lock teacher cache {folder}: {error.strerror}. Put "
                "--teacher_cache on a disk that supports flock."
            ) from None
        if is_told:
            print(f"another process is filling teacher cache {folder}; waiting for it")
        is_told = False
        time.sleep(0.5)
    return False


def _short(value):
    text = str(value)
    return text if len(text) <= 40 else text[:12]
