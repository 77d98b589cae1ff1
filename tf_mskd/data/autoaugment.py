"""The AutoAugment policy for CIFAR-10 as one batched, stateless operation.

Each image draws one of 25 sub-policies; a sub-policy is two operations, each applied
with its probability at its magnitude.

Source: Cubuk, Zoph, Mane, Vasudevan, Le, AutoAugment: Learning augmentation strategies
from data, CVPR 2019, arXiv 1805.09501, table 7 (appendix). Ranges of the magnitudes,
and which of them take a random sign (shear, translate and rotate), follow the code the
authors released, where level L of 10 means: shear 0.3 L / 10, translate int(L) pixels,
rotate int(3 L) degrees, posterize to 4 - int(0.4 L) bits, solarize at
256 - int(25.6 L), colour, contrast, brightness and sharpness by 0.1 + 0.18 L.

Departs from the source: uncovered pixels become grey 128 in raw pixels, where the
released code sets the data set's mean after normalising (125, 123, 114); translation
is in pixels of 32x32 images and is not scaled to other sizes.
"""

import typing

import tensorflow as tf

from tf_mskd.data import counter_random as random
from tf_mskd.data import image_ops
from tf_mskd.data.operation_groups import apply_groups, check_channels

# name -> (operation, level to magnitude, takes a random sign)
OPERATIONS = {
    "ShearX": (image_ops.shear_x, lambda level: 0.03 * level, True),
    "ShearY": (image_ops.shear_y, lambda level: 0.03 * level, True),
    "TranslateX": (image_ops.translate_x, lambda level: level, True),
    "TranslateY": (image_ops.translate_y, lambda level: level, True),
    "Rotate": (image_ops.rotate, lambda level: 3 * level, True),
    "AutoContrast": (image_ops.autocontrast, lambda level: 0, False),
    "Invert": (image_ops.invert, lambda level: 0, False),
    "Equalize": (image_ops.equalize, lambda level: 0, False),
    "Solarize": (image_ops.solarize, lambda level: 256 - 256 * level // 10, False),
    "Posterize": (image_ops.posterize, lambda level: 4 - 4 * level // 10, False),
    "Contrast": (image_ops.contrast, lambda level: 0.1 + 0.18 * level, False),
    "Color": (image_ops.color, lambda level: 0.1 + 0.18 * level, False),
    "Brightness": (image_ops.brightness, lambda level: 0.1 + 0.18 * level, False),
    "Sharpness": (image_ops.sharpness, lambda level: 0.1 + 0.18 * level, False),
}

# (operation, probability, level), twice a line.
CIFAR10_POLICY = (
    (("Invert", 0.1, 7), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 8), ("Equalize", 0.9, 2)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 5), ("Equalize", 0.5, 1)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 7), ("AutoContrast", 0.4, 8)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 3)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 8), ("Equalize", 0.6, 4)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 6)),
    (("AutoContrast", 0.8, 4), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 3)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 2), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 8), ("Invert", 0.1, 3)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 1)),
)


def autoaugment(
    images: tf.Tensor, keys: tf.Tensor, draw: int, policy: typing.Any = CIFAR10_POLICY
) -> tf.Tensor:
    """Applies one sub-policy per image.

    Args:
        images: uint8 [B, H, W, C], C 1 or 3; static H, W and C.
        keys: uint64 [B] of `counter_random.example_keys`.
        draw: int, first of the five draw numbers used.
        policy: tuple of sub-policies as `CIFAR10_POLICY`.

    Returns:
        uint8 [B, H, W, C].

    Raises:
        UserError: if the images have neither 1 nor 3 channels.
    """
    check_channels(images, "autoaugment")
    chosen = random.integers(keys, draw, len(policy))
    for slot in range(len(policy[0])):
        entries = [sub_policy[slot] for sub_policy in policy]
        probability = tf.gather([float(entry[1]) for entry in entries], chosen)
        applied = random.uniform(keys, draw + 1 + 2 * slot) < probability
        negative = random.uniform(keys, draw + 2 + 2 * slot) < 0.5
        images = _apply_slot(images, entries, chosen, applied, negative)
    return images


def _apply_slot(images, entries, chosen, applied, negative):
    """Applies the operations of one slot to the images whose draws say so.

    Args:
        images: uint8 [B, H, W, C].
        entries: list of (operation, probability, level), one per sub-policy.
        chosen: int32 [B], the sub-policy of each image.
        applied: bool [B]; the other images pass unchanged.
        negative: bool [B], the sign of signed magnitudes.
    """
    names = sorted({name for name, _, _ in entries})
    codes = [1 + names.index(name) for name, _, _ in entries]
    magnitudes = [float(OPERATIONS[name][1](level)) for name, _, level in entries]
    signed = tf.gather([OPERATIONS[name][2] for name, _, _ in entries], chosen)
    groups = tf.where(applied, tf.gather(codes, chosen), 0)  # 0: unchanged
    magnitude = tf.gather(magnitudes, chosen)
    magnitude = tf.where(signed & negative, -magnitude, magnitude)
    operations = [OPERATIONS[name][0] for name in names]
    return apply_groups(images, groups, operations, magnitude)
