"""Data sets by name: `load_source("digits")`, `load_source("cifar100", data_dir)`."""

import numpy as np
from PIL import Image

from tf_mskd.data.arrays import Source, Split, check_image_size
from tf_mskd.data.image_folder import load_folder
from tf_mskd.data.splits import split_ids
from tf_mskd.data.tfds_sets import load_tfds

__all__ = ["Source", "Split", "load_source", "split_ids"]


def load_source(
    name: str, data_dir: str | None = None, image_size: int | None = None
) -> Source:
    """Reads a data set into memory. Never downloads.

    Args:
        name: "digits" (built in), "folder" (images in class folders), "tiny_imagenet",
            or any other prepared image-classification set of TensorFlow Datasets,
            such as "cifar100".
        data_dir: "folder": the root that holds `train/` and `test/` (or `val/`).
            TFDS sets: the directory they were prepared in; None is the TFDS default.
        image_size: int, resize to that height and width in pixels; None keeps the
            size. Needed for TFDS sets whose images differ in size.

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
    if name == "digits":
        return load_digits(image_size)
    if name == "folder":
        return load_folder(data_dir, image_size)
    return load_tfds(name, data_dir, image_size)


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
        images = np.stack([_resize_grey(image, image_size) for image in images])
    labels = bunch.target.astype(np.int32)
    train_ids, test_ids = split_ids(labels, validation_fraction=0.2, seed=0)
    return Source(
        name="digits",
        train=Split(images[train_ids], labels[train_ids]),
        test=Split(images[test_ids], labels[test_ids]),
        class_names=tuple(str(name) for name in bunch.target_names),
    )


def _resize_grey(image, size):
    """uint8 [H, W, 1] to uint8 [size, size, 1], bilinear."""
    resized = Image.fromarray(image[..., 0]).resize((size, size), Image.BILINEAR)
    return np.asarray(resized)[..., None]
