"""Each image of a batch under an operation of its own, all of one kind at once."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_mskd.utils.errors import UserError

Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # of `image_ops`


def apply_groups(
    images: tf.Tensor,
    groups: tf.Tensor,
    operations: Sequence[Operation],
    magnitude: tf.Tensor,
) -> tf.Tensor:
    """Groups the images by operation, applies each to its group, restores the order.

    Args:
        images: uint8 [B, H, W, C], static H, W and C.
        groups: int32 [B]; g >= 1 has operation g - 1, 0 passes unchanged.
        operations: functions of `image_ops`.
        magnitude: float32 [B], what the operation of each image takes.

    Returns:
        uint8 [B, H, W, C].

    Example:
        >>> from tf_mskd.data import image_ops
        >>> pixels = tf.constant([7, 9], tf.uint8)[:, None, None, None]
        >>> changed = apply_groups(pixels, [0, 1], [image_ops.invert], tf.zeros([2]))
        >>> changed.numpy().ravel().tolist()
        [7, 246]
    """
    num_groups = 1 + len(operations)
    rows = tf.dynamic_partition(tf.range(tf.shape(images)[0]), groups, num_groups)
    parts = tf.dynamic_partition(images, groups, num_groups)
    for group, operation in enumerate(operations, start=1):
        value = tf.gather(magnitude, rows[group])
        parts[group] = operation(parts[group], value)
    return tf.ensure_shape(tf.dynamic_stitch(rows, parts), images.shape)


def check_channels(images: tf.Tensor, name: str) -> None:
    """Raises `UserError` unless images, [B, H, W, C], have 1 or 3 channels.

    Args:
        images: of static shape.
        name: str, the augmentation that needs them.
    """
    if images.shape[-1] not in (1, 3):
        raise UserError(
            f"{name} needs images of 1 or 3 channels, got {images.shape[-1]}; remove "
            "it from --augment and --second_augment."
        )
