"""Operations of AutoAugment drawn at random: RandAugment and TrivialAugment.

Both draw from fourteen operations, the identity among them. A strength in [0, 1] sets
the magnitude of each: 0 changes nothing and 1 is the most. Shears, translations, turns
and blends go either way, by a coin toss. What a geometric operation uncovers is grey
128, as under `autoaugment`.
"""

import typing

import tensorflow as tf

from tf_mskd.data import counter_random as random
from tf_mskd.data import image_ops
from tf_mskd.data.augment_draws import DRAWS_PER_STEP
from tf_mskd.data.operation_groups import apply_groups, check_channels

MOST = 10  # the largest magnitude of RandAugment
MOST_OPERATIONS = DRAWS_PER_STEP // 2  # one after another, two draws each
BINS = 31  # strengths that TrivialAugment draws from


def _either_way(most):
    return lambda strength, sign, shape: sign * strength * most


def _of_side(share, axis):
    return lambda strength, sign, shape: sign * strength * (share * shape[axis])


def _around_one(most):
    return lambda strength, sign, shape: 1.0 + sign * strength * most


def _bits(lost):
    return lambda strength, sign, shape: 8.0 - tf.round(lost * strength)


def _threshold(top):
    return lambda strength, sign, shape: top * (1.0 - strength)


def _none():
    return lambda strength, sign, shape: tf.zeros_like(strength)


def _space(shear, shift, degrees, blend, bits, top):
    """The operations and the functions (strength, sign, shape) -> magnitude [n]."""
    return (
        (image_ops.shear_x, _either_way(shear)),
        (image_ops.shear_y, _either_way(shear)),
        (image_ops.translate_x, shift(2)),
        (image_ops.translate_y, shift(1)),
        (image_ops.rotate, _either_way(degrees)),
        (image_ops.brightness, _around_one(blend)),
        (image_ops.color, _around_one(blend)),
        (image_ops.contrast, _around_one(blend)),
        (image_ops.sharpness, _around_one(blend)),
        (image_ops.posterize, _bits(bits)),
        (image_ops.solarize, _threshold(top)),
        (image_ops.autocontrast, _none()),
        (image_ops.equalize, _none()),
    )


RANDOM_SPACE = _space(
    shear=0.3,
    shift=lambda axis: _of_side(150 / 331, axis),
    degrees=30.0,
    blend=0.9,
    bits=4,
    top=256.0,
)
WIDE_SPACE = _space(
    shear=0.99,
    shift=lambda axis: _either_way(32.0),
    degrees=135.0,
    blend=0.99,
    bits=6,
    top=255.0,
)


def randaugment(
    images: tf.Tensor,
    keys: tf.Tensor,
    draw: int,
    operations: int = 2,
    magnitude: float = 9.0,
) -> tf.Tensor:
    """RandAugment: so many operations after each other, all of one magnitude.

    At magnitude 10: shear 0.3, translation by 150 / 331 of the side, 30 degrees, blends
    1 +- 0.9, posterize to 4 bits, solarize from 0; in proportion below.

    Args:
        images: uint8 [B, H, W, C], C 1 or 3; static H, W and C.
        keys: uint64 [B] of `counter_random.example_keys`.
        draw: int, first of the draw numbers used, two an operation.
        operations: int N in [1, 8], drawn with replacement.
        magnitude: float M in [0, 10].

    Returns:
        uint8 [B, H, W, C].

    Raises:
        UserError: if the images have neither 1 nor 3 channels.

    Source: Cubuk, Zoph, Shlens, Le, "RandAugment: Practical automated data augmentation
        with a reduced search space", CVPR workshops 2020, arXiv 1909.13719.
    Departs from the source: every operation grows with M, as the paper has it; in the
        released code blends are 0.1 + 0.18 M, which is the image at M = 5, and
        posterize and solarize weaken. Translation is by a part of the side, not of 100
        pixels, and fractions of a pixel go to the nearest one. Codes that divide M by
        30, not by 10, call 3 M what is M here.
    """
    check_channels(images, "randaugment")
    for slot in range(operations):
        kind = random.integers(keys, draw + 2 * slot, 1 + len(RANDOM_SPACE))
        sign = _sign(keys, draw + 2 * slot + 1)
        strength = tf.fill(tf.shape(sign), magnitude / MOST)
        images = _apply(images, kind, strength, sign, RANDOM_SPACE)
    return images


def trivialaugment(images: tf.Tensor, keys: tf.Tensor, draw: int) -> tf.Tensor:
    """TrivialAugment, the wide space: one operation of random magnitude.

    The strength is one of 31 in equal steps. At the most: shear 0.99, translation by 32
    pixels, 135 degrees, blends 1 +- 0.99, posterize to 2 bits, solarize from 0.

    Args:
        images: uint8 [B, H, W, C], C 1 or 3; static H, W and C.
        keys: uint64 [B] of `counter_random.example_keys`.
        draw: int, first of the three draw numbers used.

    Returns:
        uint8 [B, H, W, C].

    Raises:
        UserError: if the images have neither 1 nor 3 channels.

    Source: Mueller, Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data
        Augmentation", ICCV 2021, arXiv 2103.10158; ranges are those of torchvision's
        `TrivialAugmentWide`, of which the weakest solarize inverts pure white.
    Departs from the source: translations of a fraction of a pixel go to the nearest
        one, and uncovered pixels are grey, not black.
    """
    check_channels(images, "trivialaugment")
    kind = random.integers(keys, draw, 1 + len(WIDE_SPACE))
    bins = tf.cast(random.integers(keys, draw + 1, BINS), tf.float32)
    sign = _sign(keys, draw + 2)
    return _apply(images, kind, bins / (BINS - 1), sign, WIDE_SPACE)


def _sign(keys, draw):
    return tf.where(random.uniform(keys, draw) < 0.5, -1.0, 1.0)


def _apply(images, kind, strength, sign, space: typing.Any):
    """Operation `kind` of each image, int32 [B], where 0 is the identity."""
    shape = images.shape
    magnitudes = [scale(strength, sign, shape) for _, scale in space]
    table = tf.stack([tf.zeros_like(strength), *magnitudes], axis=1)
    magnitude = tf.gather(table, kind, batch_dims=1)
    return apply_groups(images, kind, [operation for operation, _ in space], magnitude)
