"""Images with a mask each, the class number of every pixel, to arrays."""

import dataclasses
import os
import typing
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from tf_mskd.data.arrays import Source, Split, check_memory
from tf_mskd.data.decode import fit, in_parallel, read_image, unreadable
from tf_mskd.data.image_folder import resized
from tf_mskd.utils.errors import UserError

VOID = 255
GREYS = {"L;2": 85, "L;4": 17}  # what Pillow multiplies few bits of grey by
NOTHING = -1  # highest class of a mask of void alone

File = str | os.PathLike | typing.BinaryIO
Pair = tuple[File, File]  # image, mask


@dataclasses.dataclass(frozen=True)
class Classes:
    """What the numbers in the masks of a data set mean.

    Args:
        names: tuple of str, or () to take as many as the training masks show.
        ids: dict, number in the mask -> class or 255, or None where they are alike.
    """

    names: tuple[str, ...] = ()
    ids: Mapping[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Decoded:
    """Images with label maps, and what the files were.

    Args:
        split: `Split`, label uint8 [N, H, W].
        sizes: int [N, 2], height and width of the files.
        highest: int [N], highest class before resizing, or -1.
        names: list of N str, of the masks.
    """

    split: Split
    sizes: np.ndarray
    highest: np.ndarray
    names: list[str]


def read_mask(file: File) -> Image.Image:
    """Reads class numbers as they are stored: greys, or the indices of a palette.

    Args:
        file: path or binary file of a PNG.

    Returns:
        Pillow image of mode "L".

    Raises:
        ValueError: with the reason, one line, for files without class numbers.
    """
    try:
        image = Image.open(file, formats=("PNG",))
        raw = image.tile[0][3]
        image.load()
    except Exception as error:  # Pillow's decoders raise many unrelated types
        raise ValueError((str(error).splitlines() or ["no PNG"])[0]) from error
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise ValueError(
            f"expected class numbers, a greyscale or palette PNG, got {image.mode} "
            "colours"
        )
    numbers = np.asarray(image).astype(np.int64) // GREYS.get(raw, 1)
    if numbers.max() > VOID:
        raise ValueError(f"expected class numbers up to {VOID}, got {numbers.max()}")
    return Image.fromarray(numbers.astype(np.uint8))


def decode_pairs(
    pairs: Sequence[Pair],
    names: Sequence[tuple[str, str]],
    shape: tuple[int, ...],
    resize: str,
    classes: Classes,
) -> Decoded:
    """Decodes images and masks, several at a time; both get the same geometry.

    Args:
        pairs: sequence of N (image, mask).
        names: sequence of N pairs of str, what messages call them.
        shape: (H, W, C) of the images.
        resize: see `decode.fit`; masks take the nearest pixel.
        classes: `Classes`.

    Raises:
        UserError: names the first file that is no image, no mask, of another size than
            its image, or has a number that is no class.
    """
    height, width, channels = shape
    images = np.empty((len(pairs), *shape), np.uint8)
    maps = np.empty((len(pairs), height, width), np.uint8)
    sizes = np.empty((len(pairs), 2), np.int64)
    highest = np.empty(len(pairs), np.int64)
    table = _table(classes)

    def decode(position):
        image, mask = _read(pairs[position], names[position], channels)
        known = _classes_of(mask, table, names[position][1], classes)
        used = np.asarray(known)
        sizes[position] = image.height, image.width
        highest[position] = used[used != VOID].max(initial=0) if _any(used) else NOTHING
        images[position] = fit(image, height, width, resize)
        nearest = Image.Resampling.NEAREST
        maps[position] = fit(known, height, width, resize, nearest)[..., 0]

    in_parallel(decode, len(pairs))
    return Decoded(
        Split(images, {"label": maps}), sizes, highest, [name for _, name in names]
    )


def to_source(
    name: str, train: Decoded, test: Decoded, classes: Classes, notes: Sequence[str]
) -> Source:
    """Makes the `Source`, with the classes that the training masks show or are named.

    Raises:
        UserError: a split of void alone, fewer than two classes, or classes of the test
            split that the training split lacks.
    """
    for part, decoded in (("train", train), ("test", test)):
        if not _any(decoded.split.labels):
            raise UserError(
                f"Masks of the {part} split of {name!r} hold {VOID} (void) alone: no "
                "pixel says what to learn."
            )
    names = classes.names
    if not names:
        names = tuple(f"class {k}" for k in range(train.highest.max() + 1))
    if len(names) < 2:
        raise UserError(
            f"Masks of {name!r} hold class 0 alone ({VOID} is void, no class): number "
            "the classes 0, 1, ..."
        )
    for decoded in (train, test):
        wrong = np.flatnonzero(decoded.highest >= len(names))
        if len(wrong):
            raise _no_class(
                decoded.names[wrong[0]], decoded.highest[wrong[0]], len(names)
            )
    return Source(name, train.split, test.split, names, tuple(notes))


def load_masks(
    name: str,
    train: Sequence[Pair],
    test: Sequence[Pair],
    classes: Classes,
    image_size: int | None,
    resize: str,
    notes: Sequence[str] = (),
) -> Source:
    """Reads pairs of files, see `decode_pairs`.

    Args:
        name: str, of the data set.
        train, test: sequences of (image path, mask path).
        classes: `Classes`.
        image_size: int or None; None takes the size of the first training image.
        resize: "crop" or "squeeze".
        notes: sequence of str, for `Source`.
    """
    if image_size is None:
        first = _read_image(train[0][0], str(train[0][0]), 3)
        shape = (first.height, first.width, 3)
    else:
        shape = (image_size, image_size, 3)
    check_memory(name, len(train) + len(test), shape, maps=1)

    def decode(pairs):
        texts = [(str(image), str(mask)) for image, mask in pairs]
        return decode_pairs(pairs, texts, shape, resize, classes)

    parts = decode(train), decode(test)
    sizes = np.concatenate([part.sizes for part in parts])
    notes = [*resized(sizes, shape, resize), *notes]
    return to_source(name, parts[0], parts[1], classes, notes)


def _any(maps):
    return bool((maps != VOID).any())


def _table(classes):
    """int [256], class of each number in a mask, -1 for none."""
    ids = classes.ids
    if ids is None:
        count = len(classes.names) or VOID
        ids = {k: k for k in range(count)}
    table = np.full(256, NOTHING)
    for number, known in {**ids, VOID: VOID}.items():
        table[number] = known
    return table


def _classes_of(mask, table, name, classes):
    numbers = np.asarray(mask)
    known = table[numbers]
    if (known < 0).any():
        wrong = numbers[known < 0].flat[0]
        raise _no_class(name, wrong, len(classes.ids or classes.names))
    return Image.fromarray(known.astype(np.uint8))


def _no_class(name, number, count):
    return UserError(
        f"Mask {name} holds {number}, which is none of the {count} classes and not "
        f"{VOID} (void): mend the mask or name all classes."
    )


def _read(pair, names, channels):
    image = _read_image(pair[0], names[0], channels)
    try:
        mask = read_mask(pair[1])
    except ValueError as error:
        raise UserError(
            f"Cannot read mask {names[1]} ({error}); replace or remove it."
        ) from error
    if mask.size != image.size:
        sizes = (f"{side.height}x{side.width}" for side in (mask, image))
        raise UserError(
            "Mask {} has {} pixels, its image {}: both must be of one size.".format(
                names[1], *sizes
            )
        )
    return image, mask


def _read_image(file, name, channels):
    try:
        return read_image(file, channels)
    except ValueError as error:
        raise unreadable(name, error) from error
