"""Checkpoints: all variables of a run and its position, in one file.

A checkpoint is an uncompressed npz: one array per variable, in order, and a header as
JSON with the format's number, each variable's path and the position. It is written to a
temporary file, flushed and moved, so a killed run leaves the old file or the new. The
zip's CRC-32 of every member finds damage; no pickle is read.
"""

import concurrent.futures
import contextlib
import dataclasses
import difflib
import json
import math
import pathlib
import re
import typing
import warnings
import zipfile

import keras
import numpy as np

from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.units import size

FORMAT = 2
KEPT = 2
NAME = re.compile(r"checkpoint_(\d{10})\.npz")  # files of other names are left alone
OLD_NAME = re.compile(r"state_\d{10}\.npz")  # format 1, without paths
SHOWN = 3  # differing variables in a message
# Keras numbers these for the whole process; their order in the file tells them apart
NUMBERED = re.compile(r"\b(seed_generator|loss_scale_optimizer)_\d+\b")


def write_checkpoint(
    path: pathlib.Path, arrays: list[tuple[str, np.ndarray]], cursor: typing.Any
) -> None:
    """Writes variables and the position `cursor` to the npz file `path`.

    Args:
        path: path that ends in ".npz".
        arrays: list of (path of a variable, its value); their order is part of the
            format.
        cursor: JSON value.
    """
    paths = [_stable(variable) for variable, _ in arrays]
    header = json.dumps({"format": FORMAT, "paths": paths, "cursor": cursor})
    members = {_key(i): value for i, (_, value) in enumerate(arrays)}
    members["header"] = np.frombuffer(header.encode(), np.uint8)
    with files.replacing(path) as temporary:
        with open(temporary, "wb") as file:
            np.savez(file, **members)


def read_checkpoint(path: pathlib.Path, variables: list[keras.Variable]) -> typing.Any:
    """Reads a checkpoint into `variables` and returns its cursor.

    Every path, shape and type is checked before the first variable changes.

    Raises:
        UserError: if the file is damaged, of another format, or holds other variables.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            _check_stored(archive.zip)
            header = _header(archive)
            number = header["format"]
            if number == FORMAT:
                paths, cursor = [str(p) for p in header["paths"]], header["cursor"]
                values = [archive[_key(i)] for i in range(len(paths))]
    except Exception as error:  # NumPy and zipfile raise many kinds for a damaged file
        reason = str(error)[:200] or type(error).__name__
        raise UserError(f"Checkpoint {str(path)!r} is damaged: {reason}.") from None
    if number != FORMAT:
        raise _other_format(path, number)
    difference = _difference(paths, [_stable(v.path) for v in variables])
    difference = difference or _other_kinds(paths, values, variables)
    if difference:
        raise UserError(
            f"Checkpoint {str(path)!r} belongs to another run or version: {difference}."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return cursor


class CheckpointManager:
    """The checkpoints of a run folder: the newest two.

    Args:
        folder: path; created if it is missing.
        read_only: bool, for the workers beside the chief, which writes.

    Raises:
        UserError: if the folder cannot be created.
    """

    def __init__(self, folder: pathlib.Path, read_only: bool = False):
        self.folder, self.read_only = files.make_folder(folder), read_only
        self._has_space = read_only
        self._writer = concurrent.futures.ThreadPoolExecutor(1)
        self._writing: concurrent.futures.Future | None = None

    def check_space(self, variables: list[keras.Variable]) -> None:
        """Looks once for room for the checkpoints of a run, and again after a failure.

        Raises:
            UserError: if the disk lacks it.
        """
        if self._has_space:
            return
        one = sum(np.dtype(v.dtype).itemsize * math.prod(v.shape) for v in variables)
        # the oldest is dropped once the new one is complete
        count = max(1, KEPT + 1 - len(self._paths()))
        files.check_space(
            self.folder,
            count * one,
            f"A run with {KEPT} checkpoints of {size(one)}, and a third while it is "
            "written,",
            "make room, or move the run folder to another disk",
        )
        self._has_space = True

    def write(
        self, step: int, variables: list[keras.Variable], cursor: typing.Any
    ) -> None:
        """Writes the checkpoint after `step` steps; drops all but it and the previous.

        A checkpoint of more steps is dropped too: the run has skipped it as damaged.

        Raises:
            UserError: if it cannot be written, or the disk has no room for it.
        """
        arrays = [(v.path, np.asarray(v.numpy())) for v in variables]
        self.check_space(variables)
        newest = self.folder / f"checkpoint_{step:010d}.npz"
        self._has_space = False  # unless all goes well
        write_checkpoint(newest, arrays, cursor)
        self._has_space = True
        paths = self._paths()
        kept = [path for path in paths if path <= newest][:KEPT]
        for path in set(paths) - set(kept):
            with contextlib.suppress(OSError):
                path.unlink()

    def write_behind(
        self, step: int, variables: list[keras.Variable], cursor: typing.Any
    ) -> None:
        """Copies the variables and writes them by `write` while training goes on.

        Raises:
            UserError: if the write before could not be done.
        """
        self.wait()
        # on every worker, as reading a metric is a step that all of them must take
        copies = [_Copy(v.path, np.array(v.numpy())) for v in variables]
        if not self.read_only:
            self._writing = self._writer.submit(self.write, step, copies, cursor)

    def wait(self) -> None:
        """Returns when all is on the disk.

        Raises:
            UserError: if it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def restore(self, variables: list[keras.Variable]) -> typing.Any:
        """Reads the newest usable checkpoint; returns its cursor, None without any.

        Raises:
            UserError: if there are checkpoints but none of them can be used.
        """
        self.wait()
        problem, paths = None, self._paths()
        for path in paths:
            try:
                return read_checkpoint(path, variables)
            except UserError as error:
                problem = error
                if path != paths[-1]:
                    warnings.warn(f"{error} Trying the previous one.", stacklevel=2)
        old = [p for p in self.folder.iterdir() if OLD_NAME.fullmatch(p.name)]
        if problem is None and old:
            problem = _other_format(max(old), 1)
        if problem is not None:
            raise UserError(
                f"{problem} No earlier checkpoint can be used. To train again from the "
                f"first step, remove {self.folder}."
            )
        return None

    def newest_step(self) -> int:
        """Returns the step of the newest checkpoint, 0 without any."""
        self.wait()
        return max((int(NAME.fullmatch(p.name)[1]) for p in self._paths()), default=0)

    def _paths(self):
        """The checkpoints, newest first."""
        paths = self.folder.iterdir()
        return sorted((p for p in paths if NAME.fullmatch(p.name)), reverse=True)


@dataclasses.dataclass(frozen=True)
class _Copy:
    """What a variable held."""

    path: str
    value: np.ndarray

    @property
    def dtype(self):
        return self.value.dtype

    @property
    def shape(self):
        return self.value.shape

    def numpy(self):
        return self.value


def _header(archive):
    if "header" not in archive.files and "cursor" in archive.files:
        return {"format": 1}
    return json.loads(archive["header"].tobytes().decode())


def _other_format(path, number):
    return UserError(
        f"Checkpoint {str(path)!r} was written by another version of tf_mskd: format "
        f"{number!r}, this version reads {FORMAT}. Finish the run with that version."
    )


def _difference(stored, expected):
    """What tells the stored variables from the run's, or "" if nothing does."""
    if stored == expected:
        return ""
    missing = [path for path in expected if path not in set(stored)]
    extra = [path for path in stored if path not in set(expected)]
    parts = []
    if missing:
        parts.append(f"it lacks {_listed(missing, extra)}")
    if extra:
        parts.append(f"it has {_listed(extra, missing)}, which this run has not")
    if not parts and len(stored) != len(expected):
        parts.append(f"it has {len(stored)} variables, this run {len(expected)}")
    if not parts:
        both = zip(stored, expected, strict=True)
        moved = [f"{a!r} in place of {b!r}" for a, b in both if a != b]
        parts.append(f"its variables have another order, {_first(moved)}")
    return "; ".join(parts)


def _other_kinds(paths, values, variables):
    """The variables whose shapes or types differ, or ""."""
    kinds = [f"{value.dtype.name} {tuple(value.shape)}" for value in values]
    expected = [f"{v.dtype} {tuple(v.shape)}" for v in variables]
    rows = zip(paths, kinds, expected, strict=True)
    return _first([f"{p!r} is {a}, here {b}" for p, a, b in rows if a != b])


def _listed(paths, others):
    """Some paths, each with the nearest of `others`."""
    texts = []
    for path in paths[:SHOWN]:
        near = difflib.get_close_matches(path, others, n=1)
        texts.append(repr(path) + (f" (nearest: {near[0]!r})" if near else ""))
    return _first(texts, len(paths))


def _first(texts, count=None):
    count = count or len(texts)
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def _stable(path):
    return NUMBERED.sub(r"\1", path)


def _check_stored(archive):
    """Refuses packed members: they could unpack to more than the memory holds."""
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED:
            raise UserError(f"its member {member.filename!r} is compressed")


def _key(index):
    return f"variable_{index:06d}"
