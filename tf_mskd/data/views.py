"""The images of a batch under an augmentation: read, then changed."""

import typing

import numpy as np
import tensorflow as tf

from tf_mskd.data.arrays import Split
from tf_mskd.data.augment import Augmentation
from tf_mskd.data.stored_images import StoredImages
from tf_mskd.utils.errors import UserError


def check_windows(split: Split, augment: Augmentation | None) -> None:
    """Raises `UserError` for windows of files where the images are in memory."""
    if augment is not None and augment.cuts_files:
        if not isinstance(split.images, StoredImages):
            raise UserError(
                "The augmentation 'source_crop' cuts windows of image files, these "
                "images are in memory: stream them, or use resized_crop."
            )


def read_images(
    split: Split,
    index: tf.Tensor,
    seed: int,
    view: typing.Any,
    augment: Augmentation | None,
) -> tf.Tensor:
    """The images at some positions, or windows of their files if `augment` cuts them.

    Args:
        split: `Split`.
        index: int64 [B], static B.
        seed, view: of the augmentation.
        augment: `Augmentation`, or None.

    Returns:
        uint8 [B, H, W, C].
    """

    def fetch(index):
        return split.images[index]

    function, inputs = fetch, [index]
    if augment is not None and augment.cuts_files:
        function = split.images.windows
        inputs.append(augment.windows(index, seed, view))
    images = tf.numpy_function(function, inputs, tf.uint8)
    return tf.ensure_shape(images, (index.shape[0], *split.images.shape[1:]))


def augmented(
    images: tf.Tensor,
    index: tf.Tensor,
    view: typing.Any,
    seed: int,
    augment: Augmentation | None,
) -> tf.Tensor:
    """Images of `read_images` under an augmentation, or as they are if it is None."""
    if augment is None:
        return images
    return tf.ensure_shape(augment(images, index, seed, view), images.shape)


def targets_of(split: Split, index: np.ndarray) -> list[np.ndarray]:
    """The targets at some positions, int32 or float32, in the split's order."""
    return [_narrow(target[index]) for target in split.targets.values()]


def target_types(split: Split) -> list[tf.DType]:
    """The dtypes of `targets_of`."""
    return [tf.as_dtype(_narrow(target[:0]).dtype) for target in split.targets.values()]


def _narrow(values):
    kinds = {"i": np.int32, "u": np.int32, "b": np.int32, "f": np.float32}
    return np.asarray(values, kinds[values.dtype.kind])
