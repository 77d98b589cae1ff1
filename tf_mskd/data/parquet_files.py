"""Parquet files of a data set: which split each is of, and their columns in parts.

Reading goes row group by row group, so it takes the memory of one of them.
"""

import contextlib
import pathlib
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tf_mskd.data.folder_splits import ROLES
from tf_mskd.utils.errors import UserError

SPLITS = {"train": "train", "val": "validation", "test": "test"}  # role -> TFDS' name
LAYOUT = "train-00000-of-00005.parquet or train/0000.parquet"


def find_splits(
    archive: str | pathlib.Path,
) -> tuple[dict[str, list[pathlib.Path]], list[pathlib.Path]]:
    """Finds the parquet files of every split.

    A split is a word of the file's name, else of the nearest folder above it:
    `data/train-00000-of-00005.parquet`, `validation/0000.parquet`. Hidden files and
    folders are passed over.

    Args:
        archive: path of the folder that holds them, or of one file.

    Returns:
        {"train", "validation" or "test": paths in the order of their names}, and the
        parquet files that tell no split.

    Raises:
        UserError: no parquet files, files of one split in several folders, or not both
            of train and test (or validation).
    """
    root = pathlib.Path(archive).expanduser()
    if not root.exists():
        raise UserError(f"{root} does not exist; set --archive to a folder of parquet.")
    found: dict[str, list[pathlib.Path]] = {}
    for path in _parquet_files(root):
        below = path.relative_to(root if root.is_dir() else root.parent)
        found.setdefault(_split_of(below), []).append(path)
    if not found:
        raise UserError(
            f"Found no .parquet files in {root}; set --archive to a folder that holds "
            f"some, such as {LAYOUT}."
        )
    others = found.pop("", [])
    for split, paths in found.items():
        _check_folder(split, paths)
    _check_splits(root, found, others)
    order = [split for split in SPLITS.values() if split in found]
    return {split: found[split] for split in order}, others


def schema_of(path: pathlib.Path) -> pa.Schema:
    """Returns the columns of a file; `UserError` where it is damaged."""
    with _opened(path) as file:
        return file.schema_arrow


def num_bytes(path: pathlib.Path) -> int:
    """Returns the uncompressed bytes of a file; `UserError` where it is damaged."""
    with _opened(path) as file:
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        return sum(group.total_byte_size for group in groups)


def read_column(
    path: pathlib.Path, column: str, rows: int
) -> Iterator[tuple[int, pa.Array]]:
    """Reads one column, so many rows at a time.

    Args:
        path: of a file.
        column: str, name; of a struct {bytes, path} the bytes are read.
        rows: int, of a part.

    Yields:
        (number of its first row, values) of every part.

    Raises:
        UserError: for a damaged file.
    """
    first = 0
    with _opened(path) as file:
        for batch in file.iter_batches(rows, columns=[column]):
            values = batch.column(0)
            if pa.types.is_struct(values.type):
                values = pc.struct_field(values, "bytes")
            yield first, values
            first += len(values)


def first_null(values: pa.Array) -> int:
    """Returns the position of the first null.

    Example:
        >>> first_null(pa.array([3, None, 4]))
        1
    """
    return values.is_null().index(True).as_py()


@contextlib.contextmanager
def _opened(path):
    try:
        # buffered ahead, all row groups of a file would be in memory
        options = {"page_checksum_verification": True, "pre_buffer": False}
        with pq.ParquetFile(path, **options) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"Cannot read parquet file {path} ({reason}); get it anew."
        ) from error


def _parquet_files(root):
    if root.is_file():
        return [root] if root.suffix == ".parquet" else []
    paths = (path.relative_to(root) for path in root.rglob("*.parquet"))
    shown = (path for path in paths if not any(p.startswith(".") for p in path.parts))
    return [root / path for path in sorted(shown) if (root / path).is_file()]


def _split_of(path):
    """The split that a path within the archive tells, or ""."""
    for text in (path.stem, *reversed(path.parts[:-1])):
        for word in re.split("[^a-z]+", text.lower()):
            if word in ROLES:
                return SPLITS[ROLES[word]]
    return ""


def _check_folder(split, paths):
    folders = sorted({str(path.parent) for path in paths})
    if len(folders) > 1:
        raise UserError(
            f"Parquet files of the split {split!r} lie in several folders "
            f"({', '.join(folders)}): set --archive to one data set."
        )


def _check_splits(root, found, others):
    if "train" in found and {"validation", "test"} & set(found):
        return
    there = ", ".join(found) or "none"
    more = f", and {others[0].name}, whose split is not told" if others else ""
    raise UserError(
        f"Expected parquet files of the splits train and test (or validation) in "
        f"{root}, named as in {LAYOUT}; found {there}{more}."
    )
