"""Own images with masks on disk: `images` and `masks` in the folder of each split."""

import collections
import pathlib

from tf_mskd.data.arrays import Source
from tf_mskd.data.decode import suffixes
from tf_mskd.data.folder_splits import check_fraction, held_out, split_roots
from tf_mskd.data.image_folder import passed_over
from tf_mskd.data.masks import Classes, load_masks
from tf_mskd.utils.errors import UserError

LAYOUT = "train/images, train/masks, test/images and test/masks"
NAMES = "classes.txt"


def load_mask_folder(
    data_dir: str | None,
    image_size: int | None = None,
    resize: str = "crop",
    test_fraction: float = 0.0,
) -> Source:
    """Reads images and the masks of the same name below `data_dir`.

    Folders of splits are spelt as those of class folders. `classes.txt` names the
    classes, one a line; without it there are as many as the training masks show.

    Args:
        data_dir: path of the root folder.
        image_size, resize: see `load_source`.
        test_fraction: float in [0, 1), part to test with where there is no test split,
            chosen by the hash of the names.

    Returns:
        `Source` with images uint8 [N, H, W, 3] and labels uint8 [N, H, W].

    Raises:
        UserError: folder missing or empty; an image without a mask or a mask without an
            image; those of `masks.load_masks`.
    """
    if not data_dir:
        raise UserError(f"Data set 'folder' needs --data_dir, a root with {LAYOUT}.")
    root = pathlib.Path(data_dir).expanduser()
    train_root, test_root = _split_roots(root)
    others: collections.Counter = collections.Counter()
    train = list_pairs(train_root, others)
    check_fraction(test_fraction, train_root, test_root, LAYOUT)
    if test_root is not None:
        test = list_pairs(test_root, others)
    else:
        train, test = _split(train, train_root, test_fraction)
    names = _class_names(root / NAMES)
    classes, notes = Classes(names), passed_over(others)
    return load_masks("folder", train, test, classes, image_size, resize, notes)


def list_pairs(
    split_root: pathlib.Path, others: collections.Counter
) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """[(image, mask)] of a split's folder, in the order of their names.

    Args:
        split_root: path, holds the folders `images` and `masks`.
        others: counts what is passed over, by kind.

    Raises:
        UserError: no images, or one that lacks its partner.
    """
    images = _by_stem(split_root / "images", suffixes(), others)
    masks = _by_stem(split_root / "masks", {".png"}, others)
    if not images:
        raise UserError(f"Found no image in {split_root / 'images'}: add some.")
    for stem in sorted(set(images) ^ set(masks)):
        if stem in images:
            raise UserError(
                f"Image {images[stem]} has no mask {split_root / 'masks' / stem}.png: "
                "add it, or remove the image."
            )
        raise UserError(
            f"Mask {masks[stem]} has no image {stem!r} in {split_root / 'images'}: add "
            "it, or remove the mask."
        )
    return [(images[stem], masks[stem]) for stem in sorted(images)]


def _by_stem(folder, endings, others):
    """{path below the folder without its ending: path}."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_dir():
            continue
        hidden = any(part.startswith(".") for part in inner.parts)
        if hidden or path.suffix.lower() not in endings:
            suffix = path.suffix.lower() or "without a suffix"
            others["hidden" if hidden else suffix] += 1
            continue
        stem = inner.with_suffix("").as_posix()
        if stem in found:
            raise UserError(f"{found[stem]} and {path} have one name: keep one.")
        found[stem] = path
    return found


def _split_roots(root):
    """The folders of the training and the test split, or None for the latter."""
    if not root.is_dir():
        raise UserError(f"Expected masks as {LAYOUT}, but {root} is no folder.")
    roots = split_roots(sorted(root.iterdir()))
    train = roots.get("train") if roots else root
    test = roots.get("test", roots.get("val"))
    for folder in (train, test) if test is not None else (train,):
        if folder is None or not all(
            (folder / n).is_dir() for n in ("images", "masks")
        ):
            raise UserError(
                f"Expected masks as {LAYOUT}, {folder or root} has none: class folders "
                "are for --task=classification."
            )
    return train, test


def _split(pairs, root, fraction):
    if len(pairs) < 2:
        raise UserError(f"{root} has one image; --test_fraction needs two.")
    chosen = held_out([image for image, _ in pairs], root / "images", fraction)
    return (
        [pair for pair in pairs if pair[0] not in chosen],
        [pair for pair in pairs if pair[0] in chosen],
    )


def _class_names(path):
    """Names of the classes in a file, () if there is none."""
    if not path.is_file():
        return ()
    names = tuple(
        line.strip() for line in path.read_text(encoding="utf-8").splitlines()
    )
    names = names[: -1 if names and not names[-1] else None]
    if len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise UserError(
            f"{path} must name two classes or more, one a line, each once: line k + 1 "
            "names class k."
        )
    return names
