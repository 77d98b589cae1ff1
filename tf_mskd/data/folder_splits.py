"""The splits of a folder of one's own: their folders, or a part that is held out."""

import hashlib
import os
import pathlib
from collections.abc import Sequence

from tf_mskd.utils.errors import UserError

SPELLINGS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "eval"),
}
ROLES = {name: role for role, names in SPELLINGS.items() for name in names}


def split_roots(entries: Sequence[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Finds the folders of splits, in upper or lower case.

    Args:
        entries: sequence of paths, all in one folder.

    Returns:
        dict, "train", "test" and "val", those that are there -> path.

    Raises:
        UserError: for two of one role.
    """
    roots: dict[str, pathlib.Path] = {}
    for path in entries:
        role = ROLES.get(path.name.lower())
        if role is None or not path.is_dir():
            continue
        if role in roots:
            raise UserError(
                f"{path.parent} has both {roots[role].name} and {path.name}: keep one "
                "of them."
            )
        roots[role] = path
    return roots


def check_fraction(
    fraction: float, root: pathlib.Path, test_root: pathlib.Path | None, layout: str
) -> None:
    """Refuses a fraction beside a test split, and a folder with neither.

    Args:
        fraction: float, --test_fraction.
        root: path of the folder that would be split.
        test_root: path of the test split, or None.
        layout: str, where images lie, for the error.

    Raises:
        UserError: if there are both or neither.
    """
    if test_root is None and not fraction:
        raise UserError(
            f"{root} has no test split in or beside it: set --test_fraction, such as "
            f"0.2, or sort the images as {layout}."
        )
    if test_root is not None and fraction:
        raise UserError(
            f"--test_fraction={fraction} is for folders without a test split, but "
            f"{test_root} is there: drop one of them."
        )


def held_out(
    paths: Sequence[str | os.PathLike], folder: pathlib.Path, fraction: float
) -> set[str | os.PathLike]:
    """Chooses the files to test with: those whose names come first by their hash.

    Args:
        paths: sequence of N >= 2 paths below `folder`.
        folder: path; where it lies changes nothing.
        fraction: float in (0, 1); round(N * fraction) are chosen, at least one and at
            most N - 1.

    Returns:
        set of paths.
    """
    count = min(max(1, round(len(paths) * fraction)), len(paths) - 1)
    return set(sorted(paths, key=lambda path: _hash(path, folder))[:count])


def _hash(path, folder):
    relative = pathlib.Path(path).relative_to(folder)
    return hashlib.sha256(os.fsencode(relative.as_posix())).digest()
