"""A whole data set in one `.npz` file, which needs neither TFDS nor TensorFlow."""

import os
import typing
import zipfile

import numpy as np

from tf_mskd.data.arrays import Source, Split, check_labels
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError

KEYS = ("train_images", "train_labels", "test_images", "test_labels", "class_names")


def write_npz(path: str | os.PathLike, source: Source) -> None:
    """Writes images and class numbers of both splits, compressed, and the class names.

    Args:
        path: path that ends in ".npz".
        source: `Source`, each image of one class.
    """
    if source.train.labels.ndim != 1:
        raise UserError(
            f"An npz file holds one class for each image, {source.name!r} has others."
        )
    arrays = {"class_names": np.array(source.class_names)}
    for name, split in (("train", source.train), ("test", source.test)):
        arrays[f"{name}_images"] = np.asarray(split.images)
        arrays[f"{name}_labels"] = split.labels.astype(np.int32)
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_npz(name: str, path: str | os.PathLike) -> Source:
    """Reads what `write_npz` has written.

    Args:
        name: str, the data set's; its channel statistics are looked up by it.
        path: path of the file, with the arrays train_images and test_images uint8
            [N, H, W, C], train_labels and test_labels int [N], class_names str [K].

    Returns:
        `Source`.

    Raises:
        UserError: if the file is missing, damaged or holds something else.
    """
    try:
        with np.load(os.path.expanduser(path), allow_pickle=False) as archive:
            missing = [key for key in KEYS if key not in archive.files]
            if missing:
                raise UserError(
                    f"{path} lacks {', '.join(missing)}: write it with python -m "
                    "tf_mskd.data.prepare --npz=FILE."
                )
            arrays = {key: archive[key] for key in KEYS}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None
    names = tuple(str(text) for text in arrays["class_names"])
    train, test = (_split(path, part, arrays, len(names)) for part in ("train", "test"))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"{path}: train images are {_shape(train)}, test images {_shape(test)}; "
            "they must be alike."
        )
    return Source(name, train, test, names)


def _split(path, part, arrays, num_classes):
    images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != images.shape[:1]:
        raise UserError(
            f"{path}: {part}_images must be uint8 [N, H, W, C] and {part}_labels [N], "
            f"got {images.dtype} {images.shape} and {labels.shape}."
        )
    if labels.dtype.kind not in "iu":
        raise UserError(f"{path}: {part}_labels must be whole numbers.")
    check_labels(str(path), part, labels, num_classes)
    return Split(images, {"label": labels.astype(np.int32)})


def _shape(split: typing.Any) -> str:
    return "x".join(map(str, split.images.shape[1:]))
