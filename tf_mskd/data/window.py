"""A random window of an image file."""

import io

import numpy as np
from PIL import Image

from tf_mskd.data.decode import read_image


def place(
    size: tuple[int, int], area: float, ratio: float, top: float, left: float
) -> tuple[int, int, int, int]:
    """Where a window of an image lies, in whole pixels.

    A window that is too long for the image is cut to its side.

    Args:
        size: (height, width) of the image in pixels.
        area: float in (0, 1], of the window, as a part of the image's.
        ratio: float > 0, width of the window by its height, in pixels.
        top, left: float in [0, 1), where in what is left the window begins.

    Returns:
        (top, left, height, width), at least 1 pixel high and wide, within the image.

    Source: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6.
    Departs from the source: one draw, cut to the image, where common code draws up to
        ten windows and falls back on the centre.

    Example:
        >>> place((100, 200), area=0.5, ratio=1.0, top=0.5, left=0.0)
        (0, 0, 100, 100)
    """
    height, width = size
    pixels = area * height * width
    tall = int(np.clip(round((pixels / ratio) ** 0.5), 1, height))
    wide = int(np.clip(round((pixels * ratio) ** 0.5), 1, width))
    return int(top * (height - tall + 1)), int(left * (width - wide + 1)), tall, wide


def read_window(
    content: bytes, draws: np.ndarray, image_shape: tuple[int, ...]
) -> np.ndarray:
    """Cuts a random window out of an image and resizes it.

    The whole image is decoded: `tf.io.decode_and_crop_jpeg`, which leaves out what lies
    outside, takes as long for photographs of any size once its pixels are copied.

    Args:
        content: bytes of the file.
        draws: float [4], area, ratio, top and left of `place`.
        image_shape: (H, W, C) of the result.

    Returns:
        uint8 [H, W, C], bilinear, antialiased.

    Raises:
        ValueError: if the file holds no image.
    """
    height, width, channels = image_shape
    image = read_image(io.BytesIO(content), channels)
    top, left, tall, wide = place((image.height, image.width), *draws)
    cut = image.crop((left, top, left + wide, top + tall))
    if cut.size != (width, height):
        cut = cut.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(cut)
    return pixels if pixels.ndim == 3 else pixels[..., None]
