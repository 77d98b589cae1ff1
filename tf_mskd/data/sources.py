"""Data sets by name: `load_source("digits")`, `load_source("cifar100", data_dir)`."""

import os

import numpy as np
from PIL import Image

from tf_mskd.data.arrays import Source, Split, check_image_size
from tf_mskd.data.cityscapes import load_cityscapes
from tf_mskd.data.decode import fit
from tf_mskd.data.image_folder import load_folder
from tf_mskd.data.low_light import load_low_light
from tf_mskd.data.mask_folder import load_mask_folder
from tf_mskd.data.npz_file import load_npz
from tf_mskd.data.nuclei import load_nuclei
from tf_mskd.data.pairs import load_pairs
from tf_mskd.data.pascal_voc import load_pascal_voc
from tf_mskd.data.reading import Reading
from tf_mskd.data.splits import split_ids
from tf_mskd.utils import files
from tf_mskd.utils.choices import ALWAYS_DECODED
from tf_mskd.utils.errors import UserError

__all__ = ["Source", "Split", "load_source", "split_ids"]

ON_DISK = {"cityscapes": load_cityscapes, "pascal_voc": load_pascal_voc}


def load_source(
    name: str,
    data_dir: str | None = None,
    image_size: int | None = None,
    resize: str = "crop",
    test_fraction: float = 0.0,
    patch_size: int = 0,
    dense: bool = False,
    memory: str = "auto",
    skip_bad: bool = False,
    centre_crop: float = 1.0,
    index_dir: str | os.PathLike | None = None,
) -> Source:
    """Reads a data set. Never downloads.

    Args:
        name: "digits", "nuclei" and "low_light" (built in), "folder" (images in class
            folders, or with masks), "pairs" (images and clean images), "pascal_voc" and
            "cityscapes" (their archives, extracted), "tiny_imagenet", or any other
            prepared set of TensorFlow Datasets with a class or a mask for each image,
            such as "cifar100".
        data_dir: "pairs": see `load_pairs`; "low_light": see `load_low_light`.
            "folder": the root that holds `train/` and `test/` (or `val/`), or
            class folders that `test_fraction` splits.
            Any set: a file of `write_npz`, which ends in ".npz".
            TFDS sets: the directory they were prepared in; None is the TFDS default.
        image_size: int, resize to that height and width in pixels; None keeps the
            size. Needed for TFDS sets whose images differ in size.
        resize: "crop" keeps the aspect ratio of images of another size: the short side
            is resized, the centre of the long side cut out; "squeeze" resizes both.
        test_fraction: float in [0, 1), part of each class of a "folder" without a test
            split to test with.
        patch_size: int >= 0, side of the patches that the images of a "folder" are cut
            into, in pixels; 0 takes them whole.
        dense: bool, whether to read the class of every pixel where a set has both: a
            "folder" of `train/images`, `train/masks`, ..., the masks of TFDS sets.
        memory: "decoded" reads all pixels into memory; "stream" leaves those of a
            "folder" or a TFDS set of one class an image in their files, and so does
            "auto" where they need more than 60 % of the free memory.
        skip_bad: bool, whether another image of the class takes the place of one of
            such a set that cannot be decoded.
        centre_crop: float in (0, 1], part of each side of such images that is kept,
            around the centre, before they are resized.
        index_dir: path of a folder, made if it is missing, that keeps where the images
            of a streamed TFDS set lie, so that it is looked for once; None keeps
            nothing.

    Returns:
        `Source`. The order within a split is the same at every call.

    Raises:
        UserError: unknown name, data missing or unreadable, labels out of range, no
            test split, or more pixels than the memory holds.

    Example:
        >>> source = load_source("digits")
        >>> source.num_classes, source.image_shape
        (10, (8, 8, 1))
    """
    check_image_size(image_size)
    reading = Reading(resize, centre_crop, memory, skip_bad, index_dir)
    _check_test_fraction(name, test_fraction)
    one_file = files.is_npz(data_dir or "")
    if name in ALWAYS_DECODED or dense or patch_size or one_file:
        if not reading.is_plain:
            raise UserError(
                "--memory=stream, --bad_images=skip and --centre_crop are for whole "
                "images of one class, in a folder or a TFDS set: leave them out."
            )
    if data_dir and files.is_npz(data_dir):
        if dense or image_size:
            raise UserError(
                f"{data_dir} holds images of one size, each of one class: leave "
                "--image_size empty and --task=classification."
            )
        return load_npz(name, data_dir)
    if name == "digits":
        return load_digits(image_size)
    if name == "nuclei":
        return load_nuclei(image_size)
    if name == "low_light":
        return load_low_light(data_dir, image_size, resize)
    if name == "pairs":
        return load_pairs(data_dir, image_size, resize)
    if name == "folder":
        if not dense:
            return load_folder(data_dir, image_size, test_fraction, patch_size, reading)
        if patch_size:
            raise UserError(
                f"--patch_size={patch_size} cuts images of one class into patches, "
                "masks are read whole: leave it at 0."
            )
        return load_mask_folder(data_dir, image_size, resize, test_fraction)
    if name in ON_DISK:
        return ON_DISK[name](data_dir, image_size, resize)
    # imported here: nothing else in memory needs TensorFlow
    if dense:
        from tf_mskd.data.tfds_masks import load_tfds_masks

        return load_tfds_masks(name, data_dir, image_size, resize)
    from tf_mskd.data.tfds_sets import load_tfds

    return load_tfds(name, data_dir, image_size, reading)


def load_digits(image_size: int | None = None) -> Source:
    """The 1,797 handwritten digits that come with scikit-learn, 8x8 grey.

    Ink counts 0..16 become round(255 / 16 * count). The test split is a fixed,
    stratified 20 %.

    Args:
        image_size: int or None, see `load_source`.

    Returns:
        `Source` with images uint8 [N, 8, 8, 1] and classes "0" to "9".
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = np.round(bunch.images * (255.0 / 16.0)).astype(np.uint8)[..., None]
    if image_size is not None:
        pictures = [Image.fromarray(image[..., 0]) for image in images]
        images = np.stack([fit(p, image_size, image_size) for p in pictures])
    labels = bunch.target.astype(np.int32)
    train_ids, test_ids = split_ids(labels, validation_fraction=0.2, seed=0)
    return Source(
        name="digits",
        train=Split(images[train_ids], {"label": labels[train_ids]}),
        test=Split(images[test_ids], {"label": labels[test_ids]}),
        class_names=tuple(str(name) for name in bunch.target_names),
    )


def _check_test_fraction(name, fraction):
    if not 0 <= fraction < 1:
        raise UserError(f"test_fraction must be in [0, 1), got {fraction!r}.")
    if fraction and name != "folder":
        raise UserError(
            f"test_fraction is for the data set 'folder'; {name!r} has a test split of "
            "its own: drop test_fraction."
        )
