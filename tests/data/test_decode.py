"""Files of cameras, scanners and editors, against known answers."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from tf_mskd.data.decode import decode_into, fit, read_image

GREY = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)  # no two pixels alike
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
# EXIF's definition: where the stored row 0 and column 0 are in the upright image
STORED = {  # orientation -> what a camera stores of an upright image
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],  # row 0 is the top, column 0 the right side
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.swapaxes(0, 1),  # left side, top
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),  # right side, top
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),  # right side, bottom
    8: lambda upright: upright[::-1].swapaxes(0, 1),  # left side, bottom
}


def file_of(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def pixels(file, channels=3):
    image = read_image(file, channels)
    return fit(image, image.height, image.width)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation_is_obeyed(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](COLOUR)))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    file = file_of(stored, kind, exif=exif, **lossless)
    expected = COLOUR
    if kind == "JPEG":  # what the file holds, turned back
        stored = np.asarray(Image.open(file_of(stored, kind)))
        turned = STORED[{6: 8, 8: 6}.get(orientation, orientation)]
        expected = turned(stored)
    assert np.array_equal(pixels(file), expected)


def test_a_damaged_note_of_the_orientation_is_no_damage():
    broken = b"Exif\0\0II*\0\xff\xff\xff\x7f"
    file = file_of(Image.fromarray(COLOUR), "PNG", exif=broken)
    assert np.array_equal(pixels(file), COLOUR)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_to_8(kind):
    values = np.linspace(0, 65535, 24).reshape(4, 6).astype(np.uint16)
    expected = np.round(values / 65535 * 255).astype(np.uint8)
    result = pixels(file_of(Image.fromarray(values), kind), channels=1)
    assert result.shape == (4, 6, 1)
    assert np.array_equal(result[..., 0], expected)
    rgb = pixels(file_of(Image.fromarray(values), kind))
    assert np.array_equal(rgb, np.repeat(result, 3, axis=-1))


def test_white_is_zero_in_a_16_bit_tiff():
    values = np.array([[0, 257, 65535]], np.uint16)
    file = file_of(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    assert pixels(file, 1).ravel().tolist() == [255, 254, 0]


def test_white_of_a_12_bit_tiff_is_4095():
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 3}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    rows = b"\xff\xf8\x00\x00"  # 4095 and 2048, and a byte that fills the word
    content = b"II*\0" + struct.pack("<I", 12) + rows + struct.pack("<H", len(tags))
    file = io.BytesIO(content + b"".join(entries) + struct.pack("<I", 0))
    assert pixels(file, 1).ravel().tolist() == [255, 128]


def test_transparent_pixels_of_16_bits_are_white():
    values = np.array([[0, 257, 65535]], np.uint16)
    file = file_of(Image.fromarray(values), "PNG", transparency=257)
    assert pixels(file, 1).ravel().tolist() == [0, 255, 255]


@pytest.mark.parametrize("values", [np.int32, np.float32])
def test_a_brightness_that_is_not_known_is_refused(values):
    file = file_of(Image.fromarray(np.ones((2, 2), values)), "TIFF")
    with pytest.raises(ValueError, match="whose white is not known: save 8 or 16 bits"):
        read_image(file)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparency_shows_a_white_background(kind):
    alpha = np.linspace(0, 255, 24).round().astype(np.uint8).reshape(4, 6)
    image = Image.fromarray(np.dstack([COLOUR, alpha]))
    share = alpha[..., None] / 255
    expected = COLOUR * share + 255 * (1 - share)
    assert np.abs(pixels(file_of(image, kind)) - expected).max() <= 1
    image.putalpha(255)
    assert np.array_equal(pixels(file_of(image, kind)), COLOUR)
    grey = Image.fromarray(np.dstack([GREY, alpha]))  # mode "LA"
    expected = GREY * share[..., 0] + 255 * (1 - share[..., 0])
    assert np.abs(pixels(file_of(grey, "PNG"), 1)[..., 0] - expected).max() <= 1


def test_four_channels_keep_the_transparency():
    rgba = np.dstack([COLOUR, GREY])
    assert np.array_equal(pixels(file_of(Image.fromarray(rgba)), 4), rgba)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palettes_become_colours(kind):
    image = Image.fromarray(GREY // 10)
    palette = np.random.default_rng(0).integers(0, 256, (256, 3))
    image = Image.fromarray(GREY // 10, "L")
    image.putpalette(palette.astype(np.uint8).tobytes())
    assert np.array_equal(pixels(file_of(image, kind)), palette[GREY // 10])
    if kind == "PNG":
        expected = palette[GREY // 10].copy()
        expected[GREY == 30] = 255
        assert np.array_equal(pixels(file_of(image, transparency=3)), expected)


def test_cmyk_jpeg_has_its_colours():
    """Ink c of 255 leaves 255 - c of the light, black ink alike: (1 - c)(1 - k)."""
    inks = {"cyan": (255, 0, 0, 0), "red": (0, 255, 255, 0), "dark": (0, 0, 0, 200)}
    light = {"cyan": (0, 255, 255), "red": (255, 0, 0), "dark": (55, 55, 55)}
    for name, ink in inks.items():
        image = Image.new("CMYK", (16, 16), ink)
        result = pixels(file_of(image, "JPEG", quality=100)).astype(int)
        assert np.abs(result - light[name]).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "JPEG2000"])
def test_lossless_formats_keep_every_pixel(kind):
    assert np.array_equal(pixels(file_of(Image.fromarray(COLOUR), kind)), COLOUR)
    grey = pixels(file_of(Image.fromarray(GREY), kind))
    assert np.array_equal(grey, np.repeat(GREY[..., None], 3, axis=-1))


def test_black_and_white_is_0_and_255():
    image = Image.fromarray(GREY > 100)
    expected = np.where(GREY > 100, 255, 0)
    assert np.array_equal(pixels(file_of(image), 1)[..., 0], expected)


def test_crop_keeps_the_aspect_ratio_and_squeeze_does_not():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 6:18] = 200  # the filter reaches beyond the centre
    image = Image.fromarray(wide)
    assert np.array_equal(fit(image, 8, 8), np.full((8, 8, 3), 200))
    assert np.array_equal(fit(image, 4, 4), np.full((4, 4, 3), 200))
    squeezed = fit(image, 8, 8, "squeeze")
    assert squeezed[0, 0, 0] == 0 and squeezed[0, 4, 0] == 200
    tall = image.transpose(Image.Transpose.TRANSPOSE)
    assert np.array_equal(fit(tall, 4, 4), np.full((4, 4, 3), 200))


@pytest.mark.parametrize("length", [7, 8, 9, 10])
def test_a_mere_crop_moves_no_pixel(length):
    whole = np.random.default_rng(0).integers(0, 255, (6, length, 3), np.uint8)
    left = (length - 6) // 2
    assert np.array_equal(fit(Image.fromarray(whole), 6, 6), whole[:, left : left + 6])


def test_resizing_by_half_is_the_triangle_filter():
    """Weights 1, 3, 3, 1 of 8 where they are inside the image."""
    row = np.array([0, 80, 40, 200, 120, 240, 160, 16], float)
    expected = []
    for k in range(4):
        places = np.arange(2 * k - 1, 2 * k + 3)
        weights = np.array([1.0, 3, 3, 1])
        inside = (places >= 0) & (places < 8)
        weights = weights[inside] / weights[inside].sum()
        expected.append(weights @ row[places[inside]])
    image = Image.fromarray(np.tile(row.astype(np.uint8), (8, 1)))
    result = fit(image, 4, 4)[..., 0]
    assert np.abs(result - np.array(expected)).max() <= 1


def test_many_files_come_in_order_with_their_sizes():
    files = [file_of(Image.new("L", (k + 1, 3), k)) for k in range(9)]
    images, sizes = np.empty((9, 3, 3, 1), np.uint8), np.empty((9, 2), int)
    decode_into(images, sizes, files)
    assert np.array_equal(images[:, 0, 0, 0], range(9))
    assert np.array_equal(sizes, [(3, k + 1) for k in range(9)])


def test_the_first_bad_file_is_named():
    files = [file_of(Image.new("L", (2, 2))) for _ in range(5)]
    files[2], files[4] = io.BytesIO(b"no image"), io.BytesIO(b"nor this")
    with pytest.raises(ValueError, match="cannot identify image") as caught:
        decode_into(np.empty((5, 2, 2, 1), np.uint8), np.empty((5, 2)), files)
    assert caught.value.position == 2
