"""Images that stay in their files: the pixels of decoded ones, and broken files."""

import os

import numpy as np
import pytest
from PIL import Image

from tf_mskd.data import counter_random, pipeline, sources
from tf_mskd.data.arrays import fits_memory
from tf_mskd.data.augment import make_augment
from tf_mskd.data.contrast_views import window_draws
from tf_mskd.data.sources import load_source
from tf_mskd.data.stored_images import StoredImages
from tf_mskd.data.window import place
from tf_mskd.utils.errors import UserError


@pytest.fixture
def root(tmp_path):
    """Pictures of mixed sizes and formats, from the digits."""
    digits = load_source("digits", image_size=24)
    for split, part, count in (("train", digits.train, 6), ("test", digits.test, 3)):
        for label, name in enumerate(("one", "two")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            images = part.images[part.labels == label + 1][:count, ..., 0]
            for number, image in enumerate(images):
                wide = Image.fromarray(np.hstack([image] * (1 + number % 2)))
                suffix = ("png", "jpg")[number % 2]
                wide.save(folder / f"{number}.{suffix}")
    return tmp_path


def stored(root):
    return load_source("folder", root, 16, memory="stream")


@pytest.mark.parametrize("batch", [1024, 4])  # one after another, or in threads
def test_the_pixels_are_those_of_decoded_images(root, batch, monkeypatch):
    monkeypatch.setattr("tf_mskd.data.stored_images.BATCH", batch)
    decoded = load_source("folder", root, 16, memory="decoded")
    source = stored(root)
    for held, read in ((source.train, decoded.train), (source.test, decoded.test)):
        assert isinstance(held.images, StoredImages)
        assert held.images.shape == read.images.shape and held.images.dtype == np.uint8
        np.testing.assert_array_equal(held.images[:], read.images)
        np.testing.assert_array_equal(held.labels, read.labels)
        for which in (3, -1, slice(1, 5, 2), [4, 0, 4], np.array([[1], [2]])):
            np.testing.assert_array_equal(held.images[which], read.images[which])
        np.testing.assert_array_equal(np.asarray(held.images), read.images)
    assert source.class_names == decoded.class_names


@pytest.mark.parametrize("resize", ["crop", "squeeze"])
def test_the_centre_is_cut_out_before_resizing(root, resize):
    options = {"resize": resize, "centre_crop": 0.5}
    for memory in ("stream", "decoded"):
        source = load_source("folder", root, 16, memory=memory, **options)
        with Image.open(root / "train" / "one" / "0.png") as picture:  # 24x24
            box = picture.convert("RGB").crop((6, 6, 18, 18))
        expected = np.asarray(box.resize((16, 16), Image.Resampling.BILINEAR))
        inner = slice(3, 13)  # at the border resizing sees what lies outside
        near = np.abs(source.train.images[0].astype(int) - expected)[inner, inner]
        assert near.max() <= 1
    wide = source.train.images[1]  # 24x48
    with Image.open(root / "train" / "one" / "1.jpg") as picture:
        box = (18, 6, 30, 18) if resize == "crop" else (12, 6, 36, 18)
        cut = picture.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR, box)
    np.testing.assert_array_equal(wide, np.asarray(cut))
    with pytest.raises(UserError, match=r"centre_crop must be in \(0, 1\], got 0"):
        load_source("folder", root, centre_crop=0.0)
    with pytest.raises(UserError, match="--centre_crop are for whole images"):
        load_source("digits", centre_crop=0.5)


def test_windows_are_cut_out_of_the_files(root):
    images = stored(root).train.images
    draws = np.array([[1.0, 1.0, 0.0, 0.0], [0.2, 0.8, 0.3, 0.6]])
    cut = images.windows(np.array([0, 1]), draws)
    np.testing.assert_array_equal(cut[0], images[0])  # square: all of it
    with Image.open(root / "train" / "one" / "1.jpg") as picture:
        top, left, tall, wide = place((24, 48), *draws[1])
        box = picture.convert("RGB").crop((left, top, left + wide, top + tall))
    expected = np.asarray(box.resize((16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(cut[1], expected)


def batches(source):
    stream = pipeline.train_stream(
        source.train,
        np.arange(12),
        batch_size=5,
        seed=3,
        augment=None,
        start_step=1,
        num_steps=5,
    )
    return [(images.numpy(), t["index"].numpy()) for images, t in stream]


def test_a_stream_from_any_step_holds_the_same_batches(root):
    decoded = batches(load_source("folder", root, 16, memory="decoded"))
    for (images, index), (others, positions) in zip(
        batches(stored(root)), decoded, strict=True
    ):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(index, positions)


def test_what_fits_is_decoded_and_what_does_not_is_left_in_files(root, monkeypatch):
    assert fits_memory(10, (10, 10, 3), 5000) and not fits_memory(10, (10, 10, 3), 4999)
    assert isinstance(load_source("folder", root, 16).train.images, np.ndarray)
    monkeypatch.setattr("tf_mskd.data.reading.fits_memory", lambda *_: False)
    source = load_source("folder", root, 16)
    assert isinstance(source.train.images, StoredImages)
    assert "decoded when they are used" in source.notes[0]


@pytest.mark.parametrize("memory", ["stream", "decoded"])
def test_another_image_of_the_class_takes_the_place_of_a_bad_one(root, memory, capsys):
    good = load_source("folder", root, 16).train.images
    for name, content in (("two/4.png", b"no image"), ("two/5.jpg", b"")):
        (root / "train" / name).write_bytes(content)
    source = load_source("folder", root, 16, memory=memory, skip_bad=True)
    expected = good.copy()
    expected[[10, 11]] = good[6]  # past the end of the class: its first
    np.testing.assert_array_equal(source.train.images[:], expected)
    told = capsys.readouterr().err
    assert told.count("cannot be read") == 2
    assert f"{os.path.join('two', '0.png')} takes its place" in told
    if memory == "stream":
        assert source.train.images.bad == {10: 6, 11: 6}
        source.train.images[[11]]
        assert not capsys.readouterr().err


def test_a_class_without_one_good_image_is_refused(root):
    for path in (root / "train" / "one").iterdir():
        path.write_bytes(b"no image")
    source = load_source("folder", root, 16, memory="stream", skip_bad=True)
    with pytest.raises(UserError, match="nor any other of its class: repair"):
        source.train.images[[0]]


def test_a_bad_file_is_named(root):
    source = stored(root)
    (root / "train" / "two" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1.jpg \(.*\); repair .*--bad_images=skip"):
        source.train.images[[7]]


def test_files_that_go_or_change_are_named(root):
    images = stored(root).train.images
    path = root / "train" / "one" / "0.png"
    content = path.read_bytes()
    first = images[0]
    path.write_bytes(content + b" ")
    with pytest.raises(UserError, match="0.png has changed since this run read it"):
        images[0]
    path.unlink()
    with pytest.raises(UserError, match=r"read .*0.png \(No such file.*put it"):
        images[0]
    images = stored(root).train.images
    assert len(images) == 11 and np.any(images[0] != first)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "digits", "memory": "stream"},
        {"name": "folder", "patch_size": 4, "skip_bad": True},
        {"name": "folder", "dense": True, "memory": "stream"},
    ],
)
def test_other_sets_are_refused(root, settings):
    with pytest.raises(UserError, match="are for whole images of one class"):
        load_source(data_dir=root, **settings)


def test_an_unknown_kind_of_memory_is_refused(root):
    with pytest.raises(UserError, match="Unknown memory 'steam'; .* 'stream'"):
        sources.load_source("folder", root, memory="steam")


def window_batches(source, augment, start=0, **options):
    stream = pipeline.train_stream(
        source.train,
        np.arange(12),
        batch_size=4,
        seed=3,
        augment=make_augment(augment, crop_scale=(0.1, 0.6)),
        start_step=start,
        num_steps=6,
        **options,
    )
    return [(images.numpy(), targets) for images, targets in stream]


def test_windows_are_drawn_as_those_of_resized_crop(root):
    """By seed, view and position; the rest of the augmentation follows."""
    source = stored(root)
    whole = window_batches(source, "source_crop,flip")
    for (images, _), (others, _) in zip(
        whole[2:], window_batches(source, "source_crop,flip", 2), strict=True
    ):
        np.testing.assert_array_equal(images, others)
    images, targets = whole[4]  # of epoch 1
    index = targets["index"].numpy()
    keys = counter_random.example_keys(3, 1, index)
    draws = np.stack(window_draws(keys, 0, (0.1, 0.6), (3 / 4, 4 / 3)), axis=1)
    assert draws[:, 0].min() >= 0.1 and draws[:, 0].max() <= 0.6
    expected = source.train.images.windows(index, draws)
    flipped = counter_random.uniform(keys, 16).numpy() < 0.5
    expected[flipped] = expected[flipped][:, :, ::-1]
    np.testing.assert_array_equal(images, expected)


def test_a_view_in_order_has_the_windows_of_its_epoch(root):
    """As a teacher cache is filled: by position, whatever the batch."""
    source = stored(root)
    augment = make_augment("source_crop,flip", crop_scale=(0.1, 0.6))
    options = {"batch_size": 5, "augment": augment, "seed": 3, "view": 1}
    in_order = [
        images for images, _, _ in pipeline.eval_stream(source.train, **options)
    ]
    in_order = np.concatenate(in_order)[:12]
    for images, targets in window_batches(source, "source_crop,flip")[3:6]:
        np.testing.assert_array_equal(images, in_order[targets["index"].numpy()])


def test_the_second_view_has_windows_of_its_own(root):
    source = stored(root)
    augment = make_augment("source_crop", crop_scale=(0.1, 0.2))
    options = {"target_keys": ("second_view",), "second_augment": augment}
    images, targets = window_batches(source, "source_crop", **options)[0]
    second = targets["second_view"].numpy()
    assert second.shape == images.shape and (second != images).any()


def test_windows_of_images_in_memory_are_refused(root):
    decoded = load_source("folder", root, 16)
    with pytest.raises(UserError, match="'source_crop' cuts windows of image files"):
        window_batches(decoded, "source_crop")
    with pytest.raises(UserError, match="must be the first augmentation, got flip,so"):
        make_augment("flip,source_crop")
