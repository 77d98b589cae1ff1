"""Windows of nuclei written in the layouts of label maps, read back; every refusal."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.support import store
from tf_mskd.data import arrays, cityscapes, pascal_voc, tfds_masks
from tf_mskd.data.masks import Classes, load_masks, read_mask
from tf_mskd.data.sources import load_source
from tf_mskd.data.summary import describe
from tf_mskd.runs.config import Config
from tf_mskd.runs.source import load
from tf_mskd.utils.errors import UserError

NUCLEI = load_source("nuclei", image_size=32)
COUNT = 4  # windows of each split


def save(path, pixels, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:  # colours that are unlike the numbers
        image = Image.fromarray(pixels, "P")
        image.putpalette(bytes(range(255, -1, -1)) * 3)
    image.save(path)


@pytest.fixture
def root(tmp_path):
    for name, split in (("train", NUCLEI.train), ("val", NUCLEI.test)):
        for k in range(COUNT):
            save(tmp_path / name / f"images/w{k}.png", split.images[k, ..., 0])
            mask = tmp_path / name / f"masks/w{k}.png"
            save(mask, split.labels[k], palette=bool(k % 2))
    return tmp_path


def masks(root, **options):
    return load_source("folder", root, dense=True, **options)


def refused(root, **options):
    with pytest.raises(UserError) as caught:
        masks(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder_comes_back_exact_from_greys_and_palettes(root):
    source = masks(root)
    for got, split in ((source.train, NUCLEI.train), (source.test, NUCLEI.test)):
        assert got.labels.dtype == np.uint8
        assert np.array_equal(got.labels, split.labels[:COUNT])
        assert np.array_equal(got.images, np.repeat(split.images[:COUNT], 3, -1))
    assert source.class_names == ("class 0", "class 1", "class 2")


def test_classes_are_named_by_a_file(root):
    (root / "classes.txt").write_text("background\ninside\nrim\n")
    assert masks(root).class_names == ("background", "inside", "rim")
    (root / "classes.txt").write_text("background\ninside\n")
    assert "none of the 2 classes" in refused(root)
    (root / "classes.txt").write_text("a\na\n")
    assert "each once" in refused(root)


def test_test_fraction_holds_out_whole_pairs_by_their_names(root):
    source = masks(root / "train", test_fraction=0.25)
    assert (len(source.train.images), len(source.test.images)) == (3, 1)
    together = np.concatenate([source.train.labels, source.test.labels])
    order = np.sort([one.tobytes() for one in together])
    assert (order == np.sort([m.tobytes() for m in NUCLEI.train.labels[:COUNT]])).all()
    assert "set --test_fraction" in refused(root / "train")
    assert "drop one of them" in refused(root, test_fraction=0.5)


@pytest.mark.parametrize("resize", ["crop", "squeeze"])
def test_image_and_mask_are_resized_alike(tmp_path, resize):
    # Blocks of 8 pixels survive both samplings: the mask is a threshold of its image.
    blocks = np.random.default_rng(0).integers(0, 2, (6, 9)).astype(np.uint8)
    big = blocks.repeat(8, 0).repeat(8, 1)
    save(tmp_path / "a.png", big * 200)
    save(tmp_path / "m.png", big)
    pair = [(tmp_path / "a.png", tmp_path / "m.png")]
    for side in (24, 48):
        split = load_masks("x", pair, pair, Classes(), side, resize).train
        grey = split.images[0, ..., 0].astype(int)
        sure = (grey < 20) | (grey > 180)
        assert sure.mean() > 0.5
        assert ((grey > 100) == split.labels[0])[sure].all()
        assert set(np.unique(split.labels)) == {0, 1}


def test_few_bits_of_grey_and_more_than_eight_are_class_numbers(tmp_path):
    numbers = np.uint8([[0, 1, 2, 3]])
    raw = tmp_path / "few.png"
    raw.write_bytes(png_of_two_bits(0b00011011))
    assert np.array_equal(np.asarray(read_mask(raw)), numbers)
    Image.fromarray(numbers.astype(np.uint16)).save(tmp_path / "deep.png")
    assert np.array_equal(np.asarray(read_mask(tmp_path / "deep.png")), numbers)


def png_of_two_bits(byte):
    import struct
    import zlib

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)
    data = zlib.compress(bytes([0, byte]))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_wrong_masks_are_refused_with_their_file(root):
    path = root / "train/masks/w1.png"
    good = path.read_bytes()
    save(path, np.zeros((32, 16), np.uint8))
    assert "w1.png has 32x16 pixels, its image 32x32" in refused(root)
    save(path, np.zeros((32, 32, 3), np.uint8))
    assert "w1.png (expected class numbers" in refused(root)
    path.write_bytes(good[:60])
    assert "Cannot read mask" in refused(root)
    path.write_bytes(good)
    save(root / "val/masks/w2.png", np.full((32, 32), 7, np.uint8))
    text = refused(root)
    assert "w2.png holds 7, which is none of the 3 classes" in text


def test_other_files_are_counted_and_two_training_folders_refused(root):
    (root / "train/images/notes.txt").write_text("x")
    (root / "val/masks/.hidden.png").write_text("x")
    assert masks(root).notes == ("passed over: 1 .txt, 1 hidden",)
    save(root / "train/images/w1.tif", np.zeros((32, 32), np.uint8))
    assert "have one name: keep one" in refused(root)
    (root / "Training").mkdir()
    assert "has both Training and train" in refused(root)


def test_partners_that_are_missing_are_named(root):
    (root / "train/masks/w1.png").unlink()
    assert "w1.png has no mask" in refused(root)
    (root / "train/images/w1.png").unlink()
    (root / "train/images/w2.png").unlink()
    assert "w2.png has no image 'w2'" in refused(root)


def test_splits_without_classes_are_refused(root):
    for k in range(COUNT):
        save(root / f"val/masks/w{k}.png", np.full((32, 32), 255, np.uint8))
    assert "test split of 'folder' hold 255 (void) alone" in refused(root)
    for k in range(COUNT):
        save(root / f"train/masks/w{k}.png", np.zeros((32, 32), np.uint8))
        save(root / f"val/masks/w{k}.png", np.zeros((32, 32), np.uint8))
    assert "class 0 alone" in refused(root)


def test_the_other_task_is_named(root, tmp_path):
    with pytest.raises(UserError, match="take --task=segmentation"):
        load_source("folder", root)
    save(tmp_path / "c/train/cat/a.png", np.zeros((8, 8), np.uint8))
    assert "--task=classification" in refused(tmp_path / "c")
    with pytest.raises(UserError, match="take the task 'segmentation'"):
        load(Config(dataset="nuclei"))
    with pytest.raises(UserError, match="take the task 'classification'"):
        load(Config(dataset="digits", task="segmentation"))


def test_a_run_reads_masks_by_its_task(root):
    config = Config(dataset="folder", data_dir=str(root), task="segmentation")
    assert load(config).train.labels.shape == (COUNT, 32, 32)


def test_memory_counts_the_masks():
    arrays.check_memory("x", 10, (10, 10, 3), available=5001)
    with pytest.raises(UserError, match="10x10x3 with masks"):
        arrays.check_memory("x", 10, (10, 10, 3), available=5001, maps=1)


def test_summary_gives_the_share_of_each_class(root):
    labels = NUCLEI.train.labels[:COUNT]
    share = 100 * (labels == 0).mean()
    assert f"train 4 images (class 0 {share:.1f} %, " in describe(masks(root))


def voc(root, stems, name):
    path = root / pascal_voc.FOLDER / pascal_voc.LISTS / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{stem}\n" for stem in stems))


def test_pascal_voc_reads_its_lists(tmp_path):
    top = tmp_path / pascal_voc.FOLDER
    for k in range(3):
        image = NUCLEI.train.images[k, ..., 0]
        (top / "JPEGImages").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(top / f"JPEGImages/{k}.jpg")
        label = NUCLEI.train.labels[k]
        save(top / f"SegmentationClass/{k}.png", label, palette=True)
    voc(tmp_path, "0", "train")
    voc(tmp_path, "2", "val")
    source = load_source("pascal_voc", tmp_path)
    assert source.num_classes == 21
    assert np.array_equal(source.train.labels, NUCLEI.train.labels[:1])
    assert np.array_equal(source.test.labels, NUCLEI.train.labels[2:3])
    voc(tmp_path, "01", "train_aug")
    source = load_source("pascal_voc", top)
    assert len(source.train.images) == 2
    assert "training list train_aug.txt" in describe(source)
    voc(tmp_path, "8", "val")
    with pytest.raises(UserError, match="lists '8', but .*8.jpg is not there"):
        load_source("pascal_voc", tmp_path)
    with pytest.raises(UserError, match="'pascal_voc' needs --data_dir"):
        load_source("pascal_voc", tmp_path / "none")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    grey = tfds.features.Image(shape=(32, 32, 1))
    colours = tfds.features.Image(shape=(32, 32, 3))
    rows = {
        key: (split.images[:COUNT], split.labels[:COUNT, ..., None] + np.uint8(1))
        for key, split in (("train", NUCLEI.train), ("test", NUCLEI.test))
    }
    store(path, "pets", rows, grey, mask={"segmentation_mask": grey})
    rows = {key: (images, masks.repeat(3, -1)) for key, (images, masks) in rows.items()}
    store(path, "scenes", rows, grey, mask={"annotation": colours})
    labels = {key: (images, [0] * COUNT) for key, (images, _) in rows.items()}
    store(path, "plain", labels, grey)
    return path


def test_tfds_masks_are_read_with_the_meaning_of_their_numbers(data_dir, monkeypatch):
    pets = tfds_masks.CLASSES["oxford_iiit_pet"]
    monkeypatch.setitem(tfds_masks.CLASSES, "pets", pets)
    source = load_source("pets", data_dir, dense=True)
    assert source.class_names == ("pet", "background", "border")
    windows = list(zip(NUCLEI.train.images, NUCLEI.train.labels, strict=True))[:COUNT]
    assert pairs(source.train) == sorted((x.tobytes(), y.tobytes()) for x, y in windows)
    monkeypatch.setattr(tfds_masks, "READ_BATCH", 3)
    again = load_source("pets", data_dir, dense=True)
    assert np.array_equal(again.train.labels, source.train.labels)
    half = load_source("pets", data_dir, image_size=16, dense=True)
    assert half.train.labels.shape == (COUNT, 16, 16)


def pairs(split):
    rows = zip(split.images, split.labels, strict=True)
    return sorted((image.tobytes(), label.tobytes()) for image, label in rows)


def test_tfds_sets_of_the_other_task_and_of_colours_are_refused(data_dir):
    with pytest.raises(UserError, match="take --task=classification"):
        load_source("plain", data_dir, dense=True)
    with pytest.raises(UserError, match="take --task=segmentation"):
        load_source("pets", data_dir)
    with pytest.raises(UserError, match="'annotation'.* are colours"):
        load_source("scenes", data_dir, dense=True)


def test_cityscapes_learns_19_of_its_34_numbers(tmp_path):
    ids = np.arange(36, dtype=np.uint8).reshape(6, 6) % 34
    for split in ("train", "val"):
        stem = f"{split}/ulm/ulm_0"
        save(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png", ids)
        save(tmp_path / f"gtFine/{stem}_gtFine_labelIds.png", ids)
    source = load_source("cityscapes", tmp_path)
    assert source.num_classes == 19
    flat = source.train.labels.ravel()
    assert (flat[7], flat[8], flat[11], flat[33]) == (0, 1, 2, 18)
    assert (flat == 255).sum() == 15 + 2  # two numbers come twice, 0 and 1
    save(tmp_path / "gtFine/val/ulm/ulm_0_gtFine_labelIds.png", ids + 1)
    with pytest.raises(UserError, match="labelIds.png holds 34"):
        load_source("cityscapes", tmp_path)
    (tmp_path / "gtFine/val/ulm/ulm_0_gtFine_labelIds.png").unlink()
    with pytest.raises(UserError, match="has no mask"):
        load_source("cityscapes", tmp_path)
    with pytest.raises(UserError, match="cityscapes/semantic_segmentation"):
        load_source("cityscapes", tmp_path / "none")
    assert len(cityscapes.NAMES) == 19
