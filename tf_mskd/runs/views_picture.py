"""A picture of the views that a method makes of an image, as its networks see them."""

import os

import numpy as np
import tensorflow as tf

from tf_mskd.methods.common.rows import interleave
from tf_mskd.runs.data import Data
from tf_mskd.training.distiller import Distiller
from tf_mskd.utils.files import replacing

IMAGES = 8  # at most
GAP = 2  # white pixels between images


def draw_views(distiller: Distiller, data: Data, path: str | os.PathLike) -> None:
    """Writes a PNG of the first training images, one line for each view of an image.

    Args:
        distiller: `Distiller` whose method makes several rows of an image, or a view of
            its own for the teacher, which is the last line.
        data: `Data` of its run.
        path: of the file.

    Raises:
        UserError: if the file cannot be written.
    """
    images, targets = next(iter(data.train_stream(0).take(1)))
    targets = {name: value[:IMAGES] for name, value in targets.items()}
    rows, targets = distiller.augment(images[:IMAGES], targets)
    views = distiller.method.rows_per_image
    if distiller.method.teacher_view:
        rows, views = interleave([rows, targets["teacher_view"]]), views + 1
    picture = tf.io.encode_png(sheet(np.asarray(rows), views))
    with replacing(path) as temporary:
        temporary.write_bytes(picture.numpy())


def sheet(rows: np.ndarray, views: int) -> np.ndarray:
    """Lays images out: a column for each image, a line for each of its rows.

    Args:
        rows: [views * n, H, W, C] in 0 .. 255, the rows of an image after each other.
        views: int >= 1, rows of an image.

    Returns:
        uint8 [views * (H + 2), n * (W + 2), C].

    Example:
        >>> sheet(np.zeros((6, 4, 4, 1)), views=2).shape
        (12, 18, 1)
    """
    gap = (0, GAP)
    framed = np.pad(rows, ((0, 0), gap, gap, (0, 0)), constant_values=255)
    height, width, channels = framed.shape[1:]
    grid = framed.reshape(-1, views, height, width, channels).transpose(1, 2, 0, 3, 4)
    lines = grid.reshape(views * height, -1, channels)
    return np.clip(np.rint(lines), 0, 255).astype(np.uint8)
