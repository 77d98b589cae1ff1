"""The files of a release: their checksums, the check of them, and one archive."""

import hashlib
import os
import pathlib
import re
import zipfile

from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")  # of sha256sum
DATE = (1980, 1, 1, 0, 0, 0)  # of every file in an archive, the first that zip knows


def write_sums(folder: pathlib.Path) -> None:
    """Writes SHA256SUMS, as `sha256sum -c` reads it, over all other files."""
    lines = [f"{_digest(folder / name)}  {name}\n" for name in _names(folder)]
    files.write_text(folder / SUMS, "".join(lines))


def check(folder: str | os.PathLike) -> int:
    """Compares a release with its SHA256SUMS.

    Args:
        folder: path of the release.

    Returns:
        int, the number of files that are as they were released.

    Raises:
        UserError: names every file that is changed, missing or additional.
    """
    folder = pathlib.Path(folder)
    known, names = _read_sums(folder), _names(folder)
    kept = [name for name in known if name in names]
    changed = [name for name in kept if _digest(folder / name) != known[name]]
    wrong = {
        "changed": changed,
        "missing": [name for name in known if name not in names],
        "additional": [name for name in names if name not in known],
    }
    told = [f"{kind} {', '.join(found)}" for kind, found in wrong.items() if found]
    if told:
        raise UserError(
            f"{folder} is not as it was released: {'; '.join(told)}. Fetch it again."
        )
    return len(known)


def write_zip(folder: pathlib.Path, root: str, path: pathlib.Path) -> None:
    """Writes an archive whose bytes depend on names and contents alone.

    Args:
        folder: path of the files.
        root: name of the folder that they lie in, in the archive.
        path: path of the archive.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted([*_names(folder), SUMS]):
            entry = zipfile.ZipInfo(f"{root}/{name}", DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (folder / name).read_bytes())


def _names(folder):
    """The files but the checksums, by their paths in the folder, sorted."""
    paths = (path for path in folder.rglob("*") if not path.is_dir())
    names = {path.relative_to(folder).as_posix() for path in paths}
    return sorted(names - {SUMS})


def _digest(path):
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None


def _read_sums(folder):
    path = folder / SUMS
    if not path.is_file():
        raise UserError(f"--check={folder} holds no {SUMS}: name a release's folder.")
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [LINE.fullmatch(line) for line in text.splitlines()]
    if not lines or None in lines:
        raise UserError(f"{path} is damaged: a line is not that of sha256sum.")
    return {line[2]: line[1] for line in lines if line}
