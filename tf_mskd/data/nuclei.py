"""The built-in data set of label maps: windows of a micrograph of cell nuclei.

One real picture, 512x512, of 125 nuclei; where it comes from, and its licence:
pictures/LICENSE.txt.
"""

import pathlib

import numpy as np
from PIL import Image

from tf_mskd.data.arrays import Source, Split
from tf_mskd.utils.errors import UserError

PICTURES = pathlib.Path(__file__).parent / "pictures"
SIDES = (32, 64, 128)  # of windows
TRAIN_COLUMNS = 384  # the windows right of them are the test split
BRIGHTEST = 99.8  # percentile of the picture that becomes 255


def load_nuclei(side: int | None = None) -> Source:
    """Cuts the picture into windows that do not overlap.

    Classes of the pixels: background, inside, and rim, the pixels of a nucleus beside
    one of another nucleus or of the background (4-neighbours).

    Args:
        side: of the windows in pixels, 32, 64 or 128; None is 64: 48 windows to train
            on, of the left three quarters of the picture, and 16 to test with.

    Returns:
        `Source` with images uint8 [N, side, side, 1] and labels uint8 [N, side, side].

    Raises:
        UserError: for another side.

    Example:
        >>> source = load_nuclei()
        >>> source.train.images.shape, source.test.labels.shape
        ((48, 64, 64, 1), (16, 64, 64))
    """
    side = 64 if side is None else side
    if side not in SIDES:
        raise UserError(
            f"Windows of 'nuclei' have {', '.join(map(str, SIDES[:-1]))} or "
            f"{SIDES[-1]} pixels a side, got {side}: set --image_size to one of these."
        )
    picture = np.asarray(Image.open(PICTURES / "nuclei.png"), np.float64)
    picture = np.clip(255 * picture / np.percentile(picture, BRIGHTEST), 0, 255)
    ids = np.asarray(Image.open(PICTURES / "nuclei_ids.png"))
    images = picture.round().astype(np.uint8)[..., None]
    labels = np.where(ids == 0, 0, np.where(_is_rim(ids), 2, 1)).astype(np.uint8)
    columns = {"train": slice(TRAIN_COLUMNS), "test": slice(TRAIN_COLUMNS, None)}
    splits = {
        name: Split(
            _windows(images[:, part], side), {"label": _windows(labels[:, part], side)}
        )
        for name, part in columns.items()
    }
    names = ("background", "inside", "rim")
    return Source("nuclei", splits["train"], splits["test"], names)


def _is_rim(ids):
    """Pixels of a nucleus with a 4-neighbour of another number."""
    wide = np.pad(ids, 1, mode="edge")
    around = (wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:])
    return (ids > 0) & np.any([other != ids for other in around], axis=0)


def _windows(picture, side):
    rows, columns = picture.shape[0] // side, picture.shape[1] // side
    cut = picture.reshape(rows, side, columns, side, *picture.shape[2:])
    return cut.swapaxes(1, 2).reshape(rows * columns, side, side, *picture.shape[2:])
