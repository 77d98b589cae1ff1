"""The views that contrastive learning compares: window, colours, grey, blur.

Every function takes `images`, uint8 [B, H, W, C] with C 1 or 3, `keys`, uint64 [B] of
`counter_random.example_keys`, and `draw`, the first of its draw numbers (at most 16);
and returns images of that shape.

Source: Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning
of Visual Representations", ICML 2020, arXiv 2002.05709, with the strengths of CIBHash
(Qiu et al., arXiv 2105.06138).
"""

import math

import tensorflow as tf

from tf_mskd.data import counter_random as random
from tf_mskd.data import image_ops

AREA = 0.5, 1.0  # of a window, as a part of the image
RATIO = 3 / 4, 4 / 3  # width by height
STRENGTH = 0.4  # of brightness, contrast and colour, either way from 1
HUE = 0.1  # of a turn, either way
JITTERED, GREYED = 0.7, 0.2  # probabilities
DEVIATION = 0.1, 2.0  # of the blur, in pixels


def resized_crop(
    images: tf.Tensor,
    keys: tf.Tensor,
    draw: int,
    scale: tuple[float, ...] = AREA,
    ratios: tuple[float, ...] = RATIO,
) -> tf.Tensor:
    """A window of random area, ratio and place, resized to the image (bilinear).

    Args:
        images, keys, draw: see above.
        scale: two floats in (0, 1], bounds of the window's area as a part of the image,
            which is uniform; 0.08 and 1 are usual for ImageNet.
        ratios: two floats > 0, bounds of width by height, whose logarithm is uniform.

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, arXiv
        1409.4842, section 6, with the bounds as given.
    Departs from the source: a window that is too long for the image is cut to its side,
        where the source draws another.
    """
    height, width = images.shape[1:3]
    area, ratio, top, left = window_draws(keys, draw, scale, ratios)
    tall = tf.minimum(tf.sqrt(area / ratio * (width / height)), 1.0)
    wide = tf.minimum(tf.sqrt(area * ratio * (height / width)), 1.0)
    top, left = top * (1.0 - tall), left * (1.0 - wide)
    # output pixel centre i + .5 is source top * H + tall * (i + .5), less .5
    zero = tf.zeros_like(top)
    offset_x = left * width + 0.5 * wide - 0.5
    offset_y = top * height + 0.5 * tall - 0.5
    transforms = [wide, zero, offset_x, zero, tall, offset_y, zero, zero]
    cut = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.stack(transforms, axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    return tf.ensure_shape(tf.cast(tf.round(cut), images.dtype), images.shape)


def window_draws(
    keys: tf.Tensor, draw: int, scale: tuple[float, ...], ratios: tuple[float, ...]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The draws of a window: area, ratio, top and left in [0, 1), each float32 [B]."""
    area = _between(keys, draw, scale)
    ratio = _between(keys, draw + 1, ratios, log=True)
    return area, ratio, random.uniform(keys, draw + 2), random.uniform(keys, draw + 3)


def jitter(images: tf.Tensor, keys: tf.Tensor, draw: int) -> tf.Tensor:
    """Brightness, contrast, colour (factors 0.6 to 1.4) and hue, probability 0.7.

    Departs from the source: in this order, where the source draws one.
    """
    changed = images
    strengths = 1 - STRENGTH, 1 + STRENGTH
    parts = image_ops.brightness, image_ops.contrast, image_ops.color
    for number, change in enumerate(parts):
        changed = change(changed, _between(keys, draw + 1 + number, strengths))
    if images.shape[-1] == 3:
        changed = turn_hue(changed, _between(keys, draw + 4, (-HUE, HUE)))
    return _some(keys, draw, JITTERED, changed, images)


def turn_hue(images: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Turns the hue of uint8 [B, H, W, 3] by a part of the circle, float32 [B]."""
    hsv = tf.image.rgb_to_hsv(tf.cast(images, tf.float32) / 255.0)
    hue, rest = hsv[..., :1], hsv[..., 1:]
    hue = tf.math.floormod(hue + turn[:, None, None, None], 1.0)
    rgb = tf.image.hsv_to_rgb(tf.concat([hue, rest], axis=-1))
    return tf.cast(tf.round(rgb * 255.0), images.dtype)


def grey(images: tf.Tensor, keys: tf.Tensor, draw: int) -> tf.Tensor:
    """Without colour, probability 0.2; images of one channel stay as they are."""
    without = image_ops.color(images, tf.zeros_like(random.uniform(keys, draw)))
    return _some(keys, draw, GREYED, without, images)


def blur(images: tf.Tensor, keys: tf.Tensor, draw: int) -> tf.Tensor:
    """A Gaussian of 3x3 pixels, deviation 0.1 to 2 pixels; edges are mirrored."""
    deviation = _between(keys, draw, DEVIATION)
    side = tf.exp(-0.5 / deviation**2)
    side = (side / (1.0 + 2.0 * side))[:, None, None, None]  # of the three weights
    values = tf.cast(images, tf.float32)
    for axis in (1, 2):
        border = [[0, 0]] * 4
        border[axis] = [1, 1]
        padded = tf.pad(values, border, mode="REFLECT")
        length = images.shape[axis]
        before, after = (
            tf.gather(padded, tf.range(start, start + length), axis=axis)
            for start in (0, 2)
        )
        values = side * (before + after) + (1.0 - 2.0 * side) * values
    return tf.cast(tf.round(values), images.dtype)


CONTRAST_VIEWS = {
    "resized_crop": resized_crop,
    "jitter": jitter,
    "grey": grey,
    "blur": blur,
}


def _between(keys, draw, bounds, log=False):
    """float32 [B], uniform between two bounds, or its logarithm is."""
    low, high = map(math.log, bounds) if log else bounds
    drawn = low + (high - low) * random.uniform(keys, draw)
    return tf.exp(drawn) if log else drawn


def _some(keys, draw, probability, changed, images):
    chosen = random.uniform(keys, draw) < probability
    return tf.where(chosen[:, None, None, None], changed, images)
