"""Own pairs of images on disk: what arrives, and the clean image it should become."""

import collections
import pathlib

import numpy as np

from tf_mskd.data.arrays import CHANNELS, Source, Split, check_memory
from tf_mskd.data.decode import (
    Undecodable,
    decode_into,
    shape_of,
    suffixes,
    unreadable,
)
from tf_mskd.utils.errors import UserError

# (folder of a split, folders of what arrives and of the clean images)
LAYOUTS = (
    {"train": ("our485", "low", "high"), "test": ("eval15", "low", "high")},
    {"train": ("train", "input", "target"), "test": ("test", "input", "target")},
)
TEXT = (
    "train/{input,target}/* and test/{input,target}/*, or our485/{low,high}/* and "
    "eval15/{low,high}/* of LOL"
)


def load_pairs(
    data_dir: str | None, image_size: int | None = None, resize: str = "crop"
) -> Source:
    """Reads pairs of images; the two of a pair have one name, whatever the suffix.

    Args:
        data_dir: path of a root with train/input, train/target, test/input and
            test/target; or with our485/low, our485/high, eval15/low and eval15/high,
            as the LOL set is unpacked.
        image_size: int or None; None takes the size of the first training image.
        resize: "crop" or "squeeze", see `decode.fit`.

    Returns:
        `Source` with images and labels uint8 [N, H, W, 3].

    Raises:
        UserError: a folder is missing or empty, an image has no partner or one of
            another size, or cannot be read.
    """
    if not data_dir:
        raise UserError(f"Data set 'pairs' needs --data_dir, a root with {TEXT}.")
    root = pathlib.Path(data_dir).expanduser()
    found = [layout for layout in LAYOUTS if (root / layout["train"][0]).is_dir()]
    if not found:
        raise UserError(f"Expected pairs as {TEXT}; {root} has neither.")
    listed = {name: _list(root, *folders) for name, folders in found[0].items()}
    first = listed["train"][0][0]
    shape = (image_size, image_size, 3) if image_size else shape_of(first)
    check_memory(str(root), 2 * sum(len(pairs) for pairs in listed.values()), shape)
    splits = {name: _read(pairs, shape, resize) for name, pairs in listed.items()}
    return Source("pairs", splits["train"], splits["test"], CHANNELS)


def _list(root, split, *kinds):
    """[(input, target)] of a split, by name."""
    inputs, targets = (_images(root / split / kind) for kind in kinds)
    for alone, other, kind in (
        (inputs, targets, kinds[1]),
        (targets, inputs, kinds[0]),
    ):
        for name in alone:
            if name not in other:
                raise UserError(
                    f"{alone[name]} has no partner of its name in "
                    f"{root / split / kind}: add it, or remove the image."
                )
    return [(inputs[name], targets[name]) for name in sorted(inputs)]


def _images(folder):
    """{name without suffix: path} of the images of a folder."""
    if not folder.is_dir():
        raise UserError(f"Expected pairs as {TEXT}, but {folder} is no folder.")
    known = suffixes()
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in known and not path.name.startswith(".")
    )
    if not paths:
        raise UserError(f"{folder} holds no image (.png, .jpg, .tif, ...): add some.")
    counts = collections.Counter(path.stem for path in paths)
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise UserError(
            f"{folder} has {count} images called {name}: names tell the pairs, keep "
            "one of them."
        )
    return {path.stem: path for path in paths}


def _read(pairs, shape, resize):
    arrays, sizes = [], []
    for paths in zip(*pairs, strict=True):
        images = np.empty((len(paths), *shape), np.uint8)
        found = np.empty((len(paths), 2), np.int64)
        try:
            decode_into(images, found, paths, resize)
        except Undecodable as error:
            raise unreadable(paths[error.position], error) from error
        arrays.append(images)
        sizes.append(found)
    for pair, size, other in zip(pairs, *sizes, strict=True):
        if tuple(size) != tuple(other):
            texts = ("{}x{}".format(*s) for s in (size, other))
            raise UserError(
                f"{pair[0]} and its partner {pair[1]} must be of one size, got "
                f"{' and '.join(texts)}: cut or resize one of them."
            )
    return Split(arrays[0], {"label": arrays[1]})
