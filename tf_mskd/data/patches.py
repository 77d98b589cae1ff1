"""Large pictures of a folder, read as patches."""

import numpy as np

from tf_mskd.data.arrays import Split, check_memory
from tf_mskd.data.decode import fit, read_image, unreadable
from tf_mskd.utils.errors import UserError


def grid(height: int, width: int, side: int) -> list[tuple[int, int, int, int]]:
    """The boxes of the square patches that a picture is cut into.

    They lie side by side from the top left corner of the centred part that they fill;
    what is left at the borders is not read.

    Args:
        height, width: int, of the picture in pixels.
        side: int >= 1, of a patch in pixels.

    Returns:
        list of (left, top, right, bottom), line by line; [] where none fits.

    Example:
        >>> grid(4, 9, 4)
        [(0, 0, 4, 4), (4, 0, 8, 4)]
    """
    lines, columns = height // side, width // side
    top, left = (height - lines * side) // 2, (width - columns * side) // 2
    corners = [
        (left + side * column, top + side * line)
        for line in range(lines)
        for column in range(columns)
    ]
    return [(x, y, x + side, y + side) for x, y in corners]


def read_patches(
    files: dict[str, list[str]], patch_size: int, image_size: int | None
) -> Split:
    """Reads every patch of every picture.

    Args:
        files: {class name: [paths]}; class k is the k-th.
        patch_size: int >= 1, side of a patch in the picture, in pixels.
        image_size: int, side to which patches are resized; None keeps it.

    Returns:
        `Split` with images uint8 [N, side, side, 3] and the targets "label" and
        "picture", int32 [N], the number of the picture that a patch is from.

    Raises:
        UserError: for a picture that cannot be read, or is smaller than a patch; if the
            patches need too much memory.
    """
    side = image_size or patch_size
    images, labels, pictures = [], [], []
    paths = [(k, path) for k, found in enumerate(files.values()) for path in found]
    for number, (label, path) in enumerate(paths):
        patches = _patches(path, patch_size, side)
        images += patches
        labels += [label] * len(patches)
        pictures += [number] * len(patches)
        expected = len(images) * len(paths) // (number + 1)  # if all are of one size
        check_memory("folder", expected, (side, side, 3))
    targets = {"label": labels, "picture": pictures}
    return Split(
        np.stack(images), {n: np.array(v, np.int32) for n, v in targets.items()}
    )


def _patches(path, patch_size, side):
    try:
        picture = read_image(path)
    except ValueError as error:
        raise unreadable(path, error) from error
    boxes = grid(picture.height, picture.width, patch_size)
    if not boxes:
        raise UserError(
            f"{path} has {picture.height}x{picture.width} pixels, less than a patch of "
            f"{patch_size}x{patch_size}: remove it, or set a smaller --patch_size."
        )
    return [fit(picture.crop(box), side, side) for box in boxes]
