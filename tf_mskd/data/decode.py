"""Files of images to pixels, as a person sees them; for every source of data.

An image is turned as its EXIF orientation says, 16-bit greys are scaled to 8 bits
(65535 is white), transparent pixels show a white background, and greyscale, palette and
CMYK become RGB. Of several frames the first is taken. An image that has the wanted size
keeps its pixels.
"""

import concurrent.futures
import functools
import os
import pathlib
import threading
import typing
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tf_mskd.utils.cores import usable_cores
from tf_mskd.utils.errors import UserError

GROUP = 8  # images of one job of a thread
BACKGROUND = (255, 255, 255, 255)  # RGBA, behind transparent pixels
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # number of channels -> Pillow's mode
NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # recognised only
ORIENTATION, BITS, PHOTOMETRIC = 0x0112, 258, 262  # tags of EXIF and TIFF
TURNS = {  # EXIF orientation -> what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Undecodable(ValueError):
    """One of several images cannot be decoded.

    Args:
        position: int, which one.
        reason: str, one line.
    """

    def __init__(self, position: int, reason: str):
        super().__init__(reason)
        self.position = position


def suffixes() -> set[str]:
    """The endings, lower case with the dot, of the formats that are decoded."""
    formats = _formats()
    known = Image.registered_extensions().items()
    return {suffix for suffix, name in known if name in formats}


def read_image(
    file: str | os.PathLike | typing.BinaryIO, channels: int = 3
) -> Image.Image:
    """Decodes one image, upright and with 8 bits a channel.

    Args:
        file: path or binary file, in any format that Pillow decodes itself.
        channels: int, 1 (grey), 3 (RGB) or 4 (RGBA, transparency kept).

    Returns:
        Pillow image of mode "L", "RGB" or "RGBA".

    Raises:
        ValueError: with the reason, one line, if it cannot be decoded or its brightness
            is not known (32-bit integers and floats).
    """
    try:
        if isinstance(file, str | os.PathLike) and not pathlib.Path(file).is_file():
            raise OSError("no regular file")  # reading a pipe would wait for ever
        with Image.open(file, formats=_formats()) as image:
            image.load()
            turn = TURNS.get(_orientation(image))
            image = _with_channels(_eight_bits(image), channels)
        return image if turn is None else image.transpose(turn)
    except Exception as error:  # Pillow's decoders raise many unrelated types
        lines = str(error).splitlines() or [type(error).__name__]
        raise ValueError(lines[0]) from error


def unreadable(path: str | os.PathLike, reason: Exception) -> UserError:
    """The `UserError` of an image file that cannot be decoded."""
    return UserError(f"Cannot read image {path} ({reason}); repair or remove it.")


def shape_of(path: str | os.PathLike) -> tuple[int, int, int]:
    """(H, W, 3) of an image file, upright.

    Raises:
        UserError: if it cannot be decoded.
    """
    try:
        image = read_image(path)
    except ValueError as error:
        raise unreadable(path, error) from error
    return image.height, image.width, 3


def fit(
    image: Image.Image,
    height: int,
    width: int,
    resize: str = "crop",
    resample: Image.Resampling = Image.Resampling.BILINEAR,
    centre: float = 1.0,
) -> np.ndarray:
    """Gives an image its final size and returns its pixels.

    Args:
        image: Pillow image of `read_image`.
        height, width: int, of the result in pixels.
        resize: "crop" keeps the aspect ratio: the short side is resized and the centre
            of the long side cut out; "squeeze" resizes both sides.
        resample: bilinear, antialiased; class numbers take the nearest pixel.
        centre: float in (0, 1], part of each side of that cut which is kept, around
            its centre: 0.875 is the usual resizing to 256 and cutting out of 224.

    Returns:
        uint8 [height, width, channels].

    Example:
        >>> fit(Image.new("RGB", (40, 20)), 8, 8).shape
        (8, 8, 3)
    """
    if image.size != (width, height) or centre < 1:
        box = (0, 0, *image.size)
        if resize == "crop":
            box = _centre(image.size, height, width)
        if centre < 1:
            box = _shrunk(box, centre)
        image = image.resize((width, height), resample, box=box)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def decode_into(
    images: np.ndarray,
    sizes: np.ndarray,
    files: Sequence[str | os.PathLike | typing.BinaryIO],
    resize: str = "crop",
    centre: float = 1.0,
) -> None:
    """Decodes files into the rows of an array, several at a time.

    Args:
        images: uint8 [N, H, W, C], filled in the order of `files`.
        sizes: int [N, 2], filled with the height and width of each upright image.
        files: sequence of N paths or binary files.
        resize, centre: see `fit`.

    Raises:
        Undecodable: for the first file that is no image.
    """
    _, height, width, channels = images.shape

    def decode(position):
        try:
            image = read_image(files[position], channels)
        except ValueError as error:
            raise Undecodable(position, str(error)) from error
        sizes[position] = image.height, image.width
        images[position] = fit(image, height, width, resize, centre=centre)

    in_parallel(decode, len(files))


def in_parallel(work: typing.Callable[[int], None], count: int) -> None:
    """Calls `work` with 0 to count - 1, several at a time.

    Raises:
        Exception: that of the first position whose call raises.
    """

    def work_on_group(start):
        for position in range(start, min(start + GROUP, count)):
            if stop.is_set():
                return
            work(position)

    stop = threading.Event()  # an error or a signal waits for no further image
    pool = concurrent.futures.ThreadPoolExecutor(usable_cores())
    try:
        # in order: the error names the first bad file
        list(pool.map(work_on_group, range(0, count, GROUP)))
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@functools.cache
def _formats():
    Image.init()  # loads all of Pillow's formats
    return tuple(name for name in Image.ID if name not in NO_PICTURES)


def _orientation(image):
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # a damaged note about the image: its pixels are good
        return None


def _eight_bits(image):
    """The image with 8 bits a channel, white at 255."""
    if image.mode in ("1", "P") or Image.getmodetype(image.mode) == "RGB":
        return image  # colours always have 8 bits here
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise ValueError(
            f"pixels are {kind}, whose white is not known: save 8 or 16 bits"
        )
    return _grey_of_16_bits(image) if image.mode.startswith("I") else image


def _grey_of_16_bits(image):
    tags = getattr(image, "tag_v2", {})  # of TIFF
    white = 2 ** tags.get(BITS, (16,))[0] - 1
    pixels = np.asarray(image).astype(np.int64)
    grey = (pixels * 255 + white // 2) // white
    if tags.get(PHOTOMETRIC) == 0:
        grey = 255 - grey
    if isinstance(image.info.get("transparency"), int):
        grey = np.where(pixels == image.info["transparency"], BACKGROUND[0], grey)
    return Image.fromarray(grey.astype(np.uint8))


def _with_channels(image, channels):
    if channels != 4 and image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, BACKGROUND)
        image = Image.alpha_composite(white, image)
    # Pillow copies an image that it converts to its own mode
    return image if image.mode == MODES[channels] else image.convert(MODES[channels])


def _centre(size, height, width):
    """(left, upper, right, lower) of the largest centred box of the aspect ratio."""
    inside = size[0], size[0] * height / width
    if inside[1] > size[1]:
        inside = size[1] * width / height, size[1]
    left, upper = (  # whole pixels: a mere crop blurs nothing
        (whole - part) // 2 for whole, part in zip(size, inside, strict=True)
    )
    return left, upper, left + inside[0], upper + inside[1]


def _shrunk(box, part):
    """A part of each side of a box (left, upper, right, lower), around its centre."""
    left, upper, right, lower = box
    aside, above = ((1 - part) / 2 * side for side in (right - left, lower - upper))
    return left + aside, upper + above, right - aside, lower - above
