"""Joint data augmentation: fourteen operations in sequence, each by chance.

Source: Li, Shao et al., "What Role Does Data Augmentation Play in Knowledge
Distillation?", ACCV 2022, doi 10.1007/978-3-031-26284-5_31; order, levels and
probability are those of the released code for CIFAR-100, where level L of 9 means:
shear 0.3 L / 9, translate by 150 / 331 * L / 9 of the side, rotate 30 L / 9 degrees,
solarize at 256 - 256 L / 9, colour, contrast, brightness and sharpness by 1 +- L / 10.
The sign of a shear, a translation or a blend is a coin toss. Two of its levels,
posterize to 8 bits and shear by 0, change nothing and are kept as they are.

Departs from the source: sheared images take the nearest pixel there is, not a bicubic
mean.
"""

import typing

import tensorflow as tf

from tf_mskd.data import counter_random as random
from tf_mskd.data import image_ops
from tf_mskd.data.operation_groups import check_channels

PROBABILITY = 0.3  # of each operation; the released code has 0.5 for CIFAR-10


def _by(share, axis):
    return lambda sign, shape: sign * (share * shape[axis])


def _around(centre, amount):
    return lambda sign, shape: centre + sign * amount


def _fixed(value):
    return lambda sign, shape: tf.fill(tf.shape(sign), float(value))


# (operation, function of signs [n] and image shape -> magnitudes [n]), in this order
OPERATIONS = (
    (image_ops.autocontrast, _fixed(0)),
    (image_ops.contrast, _around(1.0, 0.3)),
    (image_ops.posterize, _fixed(8)),
    (image_ops.solarize, _fixed(256 * 5 / 9)),
    (image_ops.translate_y, _by(150 / 331 * 8 / 9, 1)),
    (image_ops.shear_x, _around(0.0, 0.3 * 5 / 9)),
    (image_ops.brightness, _around(1.0, 0.3)),
    (image_ops.shear_y, _fixed(0)),
    (image_ops.translate_x, _by(150 / 331 * 1 / 9, 2)),
    (image_ops.sharpness, _around(1.0, 0.5)),
    (image_ops.invert, _fixed(0)),
    (image_ops.color, _around(1.0, 0.4)),
    (image_ops.equalize, _fixed(0)),
    (image_ops.rotate, _fixed(10)),
)


def joint_augmentation(
    images: tf.Tensor, keys: tf.Tensor, draw: int, operations: typing.Any = OPERATIONS
) -> tf.Tensor:
    """Applies each operation in turn to those images whose draw says so.

    Args:
        images: uint8 [B, H, W, C], C 1 or 3; static H, W and C.
        keys: uint64 [B] of `counter_random.example_keys`.
        draw: int, first of the draw numbers used, one an operation.
        operations: as `OPERATIONS`.

    Returns:
        uint8 [B, H, W, C].

    Raises:
        UserError: if the images have neither 1 nor 3 channels.
    """
    shape = images.shape
    check_channels(images, "jda")
    for number, (operation, magnitudes) in enumerate(operations):
        chance = random.uniform(keys, draw + number)
        rows = tf.where(chance < PROBABILITY)[:, 0]
        # the lower half of the draws that apply it is the negative sign
        sign = tf.where(tf.gather(chance, rows) < PROBABILITY / 2, -1.0, 1.0)
        changed = operation(tf.gather(images, rows), magnitudes(sign, shape))
        images = tf.tensor_scatter_nd_update(images, rows[:, None], changed)
    return tf.ensure_shape(images, shape)
