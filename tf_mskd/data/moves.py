"""Where pixels go: windows, mirrors, turns and squares of zeros, for whole batches."""

import math

import tensorflow as tf

from tf_mskd.data import counter_random as random


def random_crop(
    images: tf.Tensor,
    keys: tf.Tensor,
    draw: int,
    padding: int,
    flipped: tf.Tensor | None = None,
    fill: int = 0,
) -> tf.Tensor:
    """Pads by `padding` pixels and cuts a uniform window of the old size."""
    top = random.integers(keys, draw, 2 * padding + 1)
    left = random.integers(keys, draw + 1, 2 * padding + 1)
    return crop(images, top, left, padding, flipped, fill)


def crop(
    images: tf.Tensor,
    top: tf.Tensor,
    left: tf.Tensor,
    padding: int,
    flipped: tf.Tensor | None = None,
    fill: int = 0,
) -> tf.Tensor:
    """Windows of padded images, optionally mirrored.

    Args:
        images: [B, H, W, C] of any whole numbers.
        top, left: int32 [B] in [0, 2 * padding], corner in the padded image; `padding`
            in both gives the image itself.
        padding: int, pixels on each side.
        flipped: bool [B] or None, windows to mirror left and right.
        fill: value of the padding.

    Returns:
        as `images`.
    """
    height, width, channels = images.shape[1:]
    if padding:
        border = [padding, padding]
        images = tf.pad(images, [[0, 0], border, border, [0, 0]], constant_values=fill)
    rows = top[:, None] + tf.range(height)  # [B, H]
    columns = tf.range(width)
    if flipped is not None:
        columns = tf.where(flipped[:, None], width - 1 - columns, columns)
    columns = left[:, None] + columns  # [B, W]
    padded_height, padded_width = height + 2 * padding, width + 2 * padding
    first_row = tf.range(tf.shape(images)[0])[:, None] * padded_height
    pixels = ((first_row + rows) * padded_width)[:, :, None] + columns[:, None, :]
    return tf.gather(tf.reshape(images, [-1, channels]), pixels)


def flip_horizontally(images: tf.Tensor, flipped: tf.Tensor) -> tf.Tensor:
    """Mirrors the rows of uint8 [B, H, W, C] where `flipped` (bool [B]) is true."""
    zeros = tf.zeros_like(flipped, tf.int32)
    return crop(images, zeros, zeros, 0, flipped)


def rotate(images: tf.Tensor, degrees: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Rotates about the centre, bilinear with zeros outside.

    Args:
        images: [B, H, W, C] of any whole numbers.
        degrees: float32 [B], positive turns counter-clockwise.
        fill: what lies outside; above 0 the nearest pixel is taken, for label maps.

    Returns:
        as `images`, rounded to nearest.
    """
    height, width = images.shape[1:3]
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    radians = degrees * (math.pi / 180)
    cos, sin, zero = tf.cos(radians), tf.sin(radians), tf.zeros_like(radians)
    # Source pixel of output (x, y): (cos dx - sin dy, sin dx + cos dy) + centre.
    offset_x = centre_x - cos * centre_x + sin * centre_y
    offset_y = centre_y - sin * centre_x - cos * centre_y
    transforms = tf.stack([cos, -sin, offset_x, sin, cos, offset_y, zero, zero], axis=1)
    turned = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=transforms,
        output_shape=[height, width],
        fill_value=float(fill),
        interpolation="NEAREST" if fill else "BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(tf.cast(tf.round(turned), images.dtype), images.shape)


def random_cutout(
    images: tf.Tensor, keys: tf.Tensor, draw: int, size: int
) -> tf.Tensor:
    """Zeroes one square per image, its centre uniform over the pixels."""
    centre_y = random.integers(keys, draw, images.shape[1])
    centre_x = random.integers(keys, draw + 1, images.shape[2])
    return cutout(images, centre_y, centre_x, size)


def cutout(
    images: tf.Tensor, centre_y: tf.Tensor, centre_x: tf.Tensor, size: int
) -> tf.Tensor:
    """Zeroes rows [y - size // 2, y - size // 2 + size) and columns alike.

    Source: DeVries, Taylor, Improved regularization of convolutional neural networks
    with cutout, arXiv 1708.04552. Departs from the source: in raw pixels, so black.

    Args:
        images: uint8 [B, H, W, C].
        centre_y, centre_x: int32 [B], pixels; the square is clipped at the borders.
        size: int, side in pixels.
    """

    def covered(centre, length):  # [B, length]
        first = (centre - size // 2)[:, None]
        place = tf.range(length)
        return (place >= first) & (place < first + size)

    rows = covered(centre_y, images.shape[1])[:, :, None, None]
    columns = covered(centre_x, images.shape[2])[:, None, :, None]
    return tf.where(rows & columns, tf.zeros([], images.dtype), images)
