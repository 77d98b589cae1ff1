"""Cityscapes as its archives lie on disk: streets in 19 classes."""

import pathlib

from tf_mskd.data.arrays import Source
from tf_mskd.data.masks import VOID, Classes, load_masks
from tf_mskd.utils.errors import UserError

IMAGES, MASKS = "leftImg8bit", "gtFine"
LAYOUT = f"{IMAGES}/{{train,val}}/CITY and {MASKS}/{{train,val}}/CITY"
NAMES = {  # number in *_labelIds.png -> class that is learnt
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
NUM_IDS = 34
IDS = {**dict.fromkeys(range(NUM_IDS), VOID), **{i: k for k, i in enumerate(NAMES)}}
CLASSES = Classes(tuple(NAMES.values()), IDS)


def load_cityscapes(
    data_dir: str | None, image_size: int | None = None, resize: str = "crop"
) -> Source:
    """Reads the finely annotated images; `val` is the test split.

    Args:
        data_dir: the folder that holds `leftImg8bit` and `gtFine`.
        image_size, resize: see `load_source`.

    Returns:
        `Source` of 19 classes; the other 15 of the 34 numbers are void.

    Raises:
        UserError: files that are not there; those of `masks.load_masks`.

    Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene
        Understanding", CVPR 2016; numbers from cityscapesScripts, labels.py.
    """
    root = pathlib.Path(data_dir or "").expanduser()
    if not data_dir or not all((root / n).is_dir() for n in (IMAGES, MASKS)):
        raise UserError(
            f"Data set 'cityscapes' needs --data_dir, a folder with {LAYOUT}, got "
            f"{str(data_dir or '')!r}; the set of TFDS is "
            "'cityscapes/semantic_segmentation'."
        )
    train, test = (_pairs(root, split) for split in ("train", "val"))
    return load_masks("cityscapes", train, test, CLASSES, image_size, resize)


def _pairs(root, split):
    pairs = []
    for image in sorted((root / IMAGES / split).glob(f"*/*_{IMAGES}.png")):
        name = image.name.replace(f"_{IMAGES}.png", f"_{MASKS}_labelIds.png")
        mask = root / MASKS / split / image.parent.name / name
        if not mask.is_file():
            raise UserError(f"Image {image} has no mask {mask}: extract {MASKS} again.")
        pairs.append((image, mask))
    if not pairs:
        raise UserError(
            f"Found no image in {root / IMAGES / split}; expected {LAYOUT}."
        )
    return pairs
