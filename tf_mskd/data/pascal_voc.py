"""PASCAL VOC 2012 as its archive lies on disk: 20 kinds of objects, background."""

import pathlib

from tf_mskd.data.arrays import Source
from tf_mskd.data.masks import Classes, load_masks
from tf_mskd.utils.errors import UserError

FOLDER = "VOCdevkit/VOC2012"
LISTS = "ImageSets/Segmentation"
AUGMENTED = "train_aug"  # with the further masks of SBD
CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car"),
    *("cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def load_pascal_voc(
    data_dir: str | None, image_size: int | None = None, resize: str = "crop"
) -> Source:
    """Reads the images that `ImageSets/Segmentation` lists; `val` is the test split.

    With `train_aug.txt` there, that is the training split; its masks lie in
    `SegmentationClassAug`, or where that is not there in `SegmentationClass`.

    Args:
        data_dir: the folder that holds VOCdevkit, or VOC2012 itself.
        image_size, resize: see `load_source`; the images differ in size.

    Returns:
        `Source` of 21 classes.

    Raises:
        UserError: files that are not there; those of `masks.load_masks`.

    Source: Everingham, Eslami, Van Gool, Williams, Winn, Zisserman, "The PASCAL Visual
        Object Classes Challenge: A Retrospective", IJCV 2015; SBD: Hariharan, Arbelaez,
        Bourdev, Maji, Malik, "Semantic Contours from Inverse Detectors", ICCV 2011.
    """
    root = _root(data_dir)
    augmented = (root / LISTS / f"{AUGMENTED}.txt").is_file()
    train = _pairs(root, AUGMENTED if augmented else "train")
    notes = [f"training list {AUGMENTED}.txt"] if augmented else []
    test, classes = _pairs(root, "val"), Classes(CLASSES)
    return load_masks("pascal_voc", train, test, classes, image_size, resize, notes)


def _root(data_dir):
    if data_dir:
        top = pathlib.Path(data_dir).expanduser()
        for root in (top / FOLDER, top / "VOC2012", top):
            if (root / LISTS).is_dir():
                return root
    raise UserError(
        f"Data set 'pascal_voc' needs --data_dir, the folder that holds {FOLDER}/"
        f"{LISTS}, got {str(data_dir or '')!r}: extract VOCtrainval_11-May-2012.tar."
    )


def _pairs(root, name):
    path = root / LISTS / f"{name}.txt"
    if not path.is_file():
        raise UserError(f"{path} is not there: extract the archive of VOC 2012 again.")
    masks = root / "SegmentationClassAug"
    if name != AUGMENTED or not masks.is_dir():
        masks = root / "SegmentationClass"
    pairs = []
    for stem in path.read_text(encoding="utf-8").split():
        pair = root / "JPEGImages" / f"{stem}.jpg", masks / f"{stem}.png"
        for file in pair:
            if not file.is_file():
                raise UserError(f"{path} lists {stem!r}, but {file} is not there.")
        pairs.append(pair)
    if not pairs:
        raise UserError(f"{path} lists no image.")
    return pairs
