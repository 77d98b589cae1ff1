"""Atomic files: a reader sees the old content or the new, never a part."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import typing
from collections.abc import Iterator

from tf_mskd.utils.errors import UserError
from tf_mskd.utils.run_paths import RunPaths
from tf_mskd.utils.units import size

TEMPORARY = re.compile(r"\.\w+\.\d+\.\w+")  # the names that `replacing` gives


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside `path` and moves it there on success.

    The data are flushed to the disk before the move. On an error the temporary file is
    removed and `path` stays as it was.

    Raises:
        UserError: if the disk is full or the folder cannot be written.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        kept = " The previous file is unchanged." if path.exists() else ""
        raise UserError(
            f"Cannot write {path}: {reason}.{kept} Fix the problem and run the same "
            "command again."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def make_folder(path: str | os.PathLike, what: str = "folder") -> pathlib.Path:
    """Makes a folder and those above it unless they are there; returns its path.

    Args:
        path: str or path.
        what: str, how the message of an error calls it.

    Raises:
        UserError: if it cannot be made.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Cannot make {what} {path}: {reason}.") from None
    return path


def check_space(folder: pathlib.Path, needed: int, what: str, advice: str) -> None:
    """Refuses to begin what its file system has no room for.

    One that tells no size, as some over a network do, is taken to have room.

    Args:
        folder: path of a folder that exists.
        needed: int, bytes that will be written there.
        what: str, what they are, for the message.
        advice: str, what to do, for the message.

    Raises:
        UserError: if less than `needed` is free.
    """
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return
    if usage.total and usage.free < needed:
        raise UserError(
            f"{what} needs {size(needed)} of disk space, {size(usage.free)} are free "
            f"in {folder}: {advice}."
        )


def is_npz(path: str | os.PathLike) -> bool:
    """Whether a data folder is a file of a whole data set instead, see `data.npz_file`.

    Example:
        >>> is_npz("data/cifar100.npz")
        True
    """
    return pathlib.Path(path).suffix == ".npz"


def split_paths(text: str) -> list[str]:
    """Splits "a,b" into paths; a comma in the name of one that exists stays.

    Example:
        >>> split_paths("runs/teacher, runs/mskd")
        ['runs/teacher', 'runs/mskd']
    """
    parts, found = text.split(","), []
    while parts:
        counts = range(len(parts), 0, -1)
        candidates = {n: ",".join(parts[:n]).strip() for n in counts}
        count = next((n for n in counts if os.path.exists(candidates[n])), 1)
        found.append(candidates[count])
        parts = parts[count:]
    return [path for path in found if path]


def model_file(path: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a model file: of the student, if `path` is a run folder.

    Raises:
        UserError: if there is no such file.
    """
    path = pathlib.Path(path)
    if os.path.isdir(path):
        path = RunPaths(path).student
    if not os.path.isfile(path):
        raise UserError(f"No model file at {str(path)!r}: has the run finished?")
    return path


def write_text(path: str | os.PathLike, text: str) -> None:
    """Replaces the file at `path` by `text`, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: typing.Any) -> None:
    """Replaces the file at `path` by `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | os.PathLike) -> typing.Any:
    """Reads a JSON file.

    Raises:
        UserError: if it is not JSON, or no file.
    """
    return _parse(_text(path), path)


def read_json_lines(path: str | os.PathLike) -> list[dict]:
    """Reads a file of one JSON object a line into a list of dict.

    Raises:
        UserError: if a line is not a JSON object.
    """
    values = [_parse(line, path) for line in _text(path).splitlines()]
    if not all(isinstance(value, dict) for value in values):
        raise UserError(f"{path} must hold one JSON object a line, got something else.")
    return values


def remove_temporary(folder: pathlib.Path) -> None:
    """Removes what processes that were killed in the middle of a write have left.

    Call it only while no other process writes to `folder`.
    """
    for path in pathlib.Path(folder).iterdir():
        if TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def _text(path):
    if not os.path.isfile(path):  # reading a pipe would wait for ever
        raise UserError(f"{path} is missing or no file.")
    try:
        return pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None


def _parse(text, path):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}.") from None
