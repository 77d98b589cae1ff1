"""Which files of a folder are images, and of which split and class."""

import collections
import dataclasses
import os
import pathlib

from tf_mskd.data.decode import suffixes
from tf_mskd.data.folder_splits import ROLES, check_fraction, held_out, split_roots
from tf_mskd.utils.errors import UserError

LAYOUT = "train/<class>/* and test/<class>/*"


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images below a folder.

    Args:
        train, test: {class name: [paths]}; both sorted, classes alike. Paths are text:
            of a million images, objects would take a minute and a gigabyte.
        passed_over: what was not taken -> number of entries.
    """

    train: dict[str, list[str]]
    test: dict[str, list[str]]
    passed_over: dict[str, int]


def list_images(root: pathlib.Path, test_fraction: float = 0.0) -> Listing:
    """Lists `train/<class>/**` and `test/<class>/**`, or `<class>/**` to be split.

    Folders of splits are spelt as `folder_splits` knows them; `val` is the test split
    where there is no `test`. Hidden entries and files of other types are counted and
    passed over.

    Args:
        root: path of the folder.
        test_fraction: float in [0, 1), part of each class to test with where `root` has
            no test split: round(n * fraction) images, at least one, whichever come
            first by the hash of their names.

    Returns:
        `Listing`.

    Raises:
        UserError: no images as described, one class only, or classes that differ.
    """
    passed_over: collections.Counter = collections.Counter()
    roots = split_roots(_entries(root))
    top = roots.get("train")
    if top is None and roots:
        found = next(iter(roots.values())).name
        raise UserError(f"Expected images as {LAYOUT}; {root} has {found}, no train.")
    train = _class_files(top or root, passed_over)
    test_root = roots.get("test", roots.get("val"))
    if top is not None:
        _count_others(root, {top, test_root}, passed_over)
    if test_root is None:
        _check_classes(train, top or root)
        check_fraction(test_fraction, top or root, None, LAYOUT)
        train, test = _split(train, top or root, test_fraction)
        return Listing(train, test, dict(passed_over))
    check_fraction(test_fraction, root, test_root, LAYOUT)
    test = _class_files(test_root, passed_over)
    if list(train) != list(test):
        differing = ", ".join(sorted(set(train) ^ set(test)))
        raise UserError(
            f"Classes of {top} and {test_root} must agree; only one of them has "
            f"{differing}."
        )
    _check_classes(train, top)
    return Listing(train, test, dict(passed_over))


def _class_files(split_root, passed_over):
    """{class name: [files]}, both sorted, of one split folder."""
    folders = []
    for path in _entries(split_root):
        if not path.is_dir() or _is_hidden(path.name):
            kind = _kind(path.name)
            passed_over[kind or "images outside of class folders"] += 1
        else:
            folders.append(path)
    files = {folder.name: _images(folder, passed_over) for folder in folders}
    for folder in folders:
        if not files[folder.name]:
            raise UserError(
                f"Class folder {folder} holds no image (.png, .jpg, .tif, ...): add "
                "some, or remove it."
            )
    if not files:
        raise UserError(
            f"Expected images as {LAYOUT}, but {split_root} has no class folder."
        )
    return files


def _check_classes(files, split_root):
    if len(files) == 1:
        raise UserError(
            f"Expected at least two classes in {split_root}, got one, "
            f"{next(iter(files))!r}: images lie as {LAYOUT}."
        )


def _images(folder, passed_over):
    """All images in and below a class folder, sorted."""
    found, seen = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        passed_over["hidden"] += sum(map(_is_hidden, folders))
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in names:
            kind = _kind(name)
            if kind:
                passed_over[kind] += 1
            else:
                found.append(os.path.join(parent, name))
    return sorted(found, key=lambda path: path.split(os.sep))  # as folders nest


def _count_others(root, used, passed_over):
    """Counts the entries beside the folders of the splits."""
    for path in _entries(root):
        if path in used:
            continue
        if path.is_dir() and not _is_hidden(path.name):
            why = " (test is there)" if ROLES.get(path.name.lower()) == "val" else ""
            passed_over[f"folder {path.name}{why}"] += 1
        else:
            passed_over[_kind(path.name) or "images outside of class folders"] += 1


def _split(files, root, fraction):
    """(train, test) of {class name: [files]}, by class and by the hash of the names."""
    train, test = {}, {}
    for name, paths in files.items():
        if len(paths) < 2:
            raise UserError(
                f"Class {name!r} of {root} has one image; --test_fraction needs two: "
                "one to train and one to test on."
            )
        chosen = held_out(paths, root / name, fraction)
        test[name] = [path for path in paths if path in chosen]
        train[name] = [path for path in paths if path not in chosen]
    return train, test


def _kind(name):
    """Why a file of that name is passed over, "" for an image."""
    if _is_hidden(name):
        return "hidden"
    suffix = os.path.splitext(name)[1].lower().rstrip(".")
    return "" if suffix in SUFFIXES else suffix or "without a suffix"


def _is_hidden(name):
    return name.startswith(".") or name == "__MACOSX"


def _entries(folder):
    """The sorted paths in a folder."""
    if not folder.is_dir():
        raise UserError(f"Expected images as {LAYOUT}, but {folder} is no folder.")
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise _cannot_list(error) from error


def _refuse(error):
    raise _cannot_list(error) from error


def _cannot_list(error):
    return UserError(
        f"Cannot list {error.filename} ({error.strerror}): change its permissions."
    )


SUFFIXES = suffixes()
