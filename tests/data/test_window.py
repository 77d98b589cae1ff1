"""Windows of image files: where they lie, and their pixels."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from tf_mskd.data.window import place, read_window


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(load_sample_image("china.jpg")).resize((200, 150))


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_places_have_the_area_and_ratio_that_were_drawn():
    random = np.random.default_rng(0)
    for _ in range(200):
        area, ratio = random.uniform(0.08, 0.5), random.uniform(0.75, 1.3333)
        top, left, tall, wide = place((480, 640), area, ratio, *random.random(2))
        assert 0 <= top <= 480 - tall and 0 <= left <= 640 - wide
        np.testing.assert_allclose(tall * wide, area * 480 * 640, rtol=0.02)
        np.testing.assert_allclose(wide / tall, ratio, rtol=0.02)


def test_every_place_is_reached_and_none_lies_outside():
    ends = [place((10, 10), 0.25, 1.0, u, u)[:2] for u in np.linspace(0, 0.999999, 60)]
    assert sorted(set(ends)) == [(k, k) for k in range(6)]
    assert place((10, 40), 1.0, 0.1, 0.9, 0.9) == (0, 31, 10, 6)
    assert place((1, 1), 0.08, 1.0, 0.5, 0.5) == (0, 0, 1, 1)


DRAWS = np.array([0.4, 1.2, 0.3, 0.7])


def expected_of(picture):
    top, left, tall, wide = place((picture.height, picture.width), *DRAWS)
    box = picture.crop((left, top, left + wide, top + tall))
    return np.asarray(box.resize((32, 24), Image.Resampling.BILINEAR), int)


def test_a_png_has_the_pixels_of_its_window(picture):
    cut = read_window(saved(picture, "PNG"), DRAWS, (24, 32, 3))
    np.testing.assert_array_equal(cut, expected_of(picture))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpeg_has_the_pixels_of_its_window(picture, subsampling, progressive):
    options = {"quality": 90, "subsampling": subsampling, "progressive": progressive}
    content = saved(picture, "JPEG", **options)
    whole = Image.open(io.BytesIO(content))
    random = np.random.default_rng(subsampling)
    for _ in range(20):
        draws = (random.uniform(0.02, 1), random.uniform(0.5, 2), *random.random(2))
        top, left, tall, wide = place((150, 200), *draws)
        cut = read_window(content, draws, (tall, wide, 3))
        box = whole.crop((left, top, left + wide, top + tall))
        np.testing.assert_array_equal(cut, np.asarray(box))
    cut = read_window(content, DRAWS, (24, 32, 3))
    np.testing.assert_array_equal(cut, expected_of(whole))


def test_a_turned_jpeg_is_cut_upright(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(picture, "JPEG", quality=95, exif=exif)
    cut = read_window(content, DRAWS, (24, 32, 3))
    expected = expected_of(picture.transpose(Image.Transpose.ROTATE_270))
    assert np.abs(cut - expected).mean() < 4  # what saving as JPEG has changed


def test_grey_files_and_grey_results(picture):
    content = saved(picture.convert("L"), "JPEG", quality=95)
    cut = read_window(content, DRAWS, (24, 32, 3))
    assert (cut[..., 0] == cut[..., 2]).all()
    assert read_window(content, DRAWS, (24, 32, 1)).shape == (24, 32, 1)
    cmyk = saved(picture.convert("CMYK"), "JPEG")
    assert read_window(cmyk, DRAWS, (24, 32, 3)).shape == (24, 32, 3)


def test_what_is_no_image_is_refused(picture):
    content = saved(picture, "JPEG")
    for bad in (b"", b"no image", content[:700], content[:5]):
        with pytest.raises(ValueError) as error:
            read_window(bad, DRAWS, (24, 32, 3))
        assert str(error.value) and "\n" not in str(error.value)
