"""The image operations of AutoAugment, batched; pixel for pixel those of Pillow.

Every operation takes `images`, uint8 [n, H, W, C] with C 1 or 3, and `magnitude`,
float32 [n], one value an image; operations without a magnitude pass it over.
"""

import math

import tensorflow as tf

FILL = 128  # grey that fills what a geometric operation uncovers
FIXED = 65536  # Pillow samples affine maps in 16.16 fixed point


def shear_x(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Output (x, y) is input (x + magnitude * y, y), nearest pixel."""
    return _affine(images, (1.0, magnitude, 0.0, 0.0, 1.0, 0.0))


def shear_y(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Output (x, y) is input (x, y + magnitude * x), nearest pixel."""
    return _affine(images, (1.0, 0.0, 0.0, magnitude, 1.0, 0.0))


def translate_x(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Output (x, y) is input (x + magnitude, y); magnitude in pixels."""
    return _affine(images, (1.0, 0.0, magnitude, 0.0, 1.0, 0.0))


def translate_y(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Output (x, y) is input (x, y + magnitude); magnitude in pixels."""
    return _affine(images, (1.0, 0.0, 0.0, 0.0, 1.0, magnitude))


def rotate(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Turns counter-clockwise about the centre by magnitude in degrees, nearest."""
    radians = -tf.cast(magnitude, tf.float64) * (math.pi / 180)
    cos, sin = tf.cos(radians), tf.sin(radians)
    centre_x, centre_y = images.shape[2] / 2, images.shape[1] / 2
    offset_x = centre_x - cos * centre_x - sin * centre_y
    offset_y = centre_y + sin * centre_x - cos * centre_y
    return _affine(images, (cos, sin, offset_x, -sin, cos, offset_y))


def autocontrast(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to the full range 0..255."""
    del magnitude
    values = tf.cast(images, tf.float64)
    low = tf.reduce_min(values, axis=(1, 2), keepdims=True)
    high = tf.reduce_max(values, axis=(1, 2), keepdims=True)
    scale = 255.0 / tf.maximum(high - low, 1.0)
    stretched = tf.clip_by_value(values * scale - low * scale, 0.0, 255.0)
    return tf.where(high > low, tf.cast(stretched, images.dtype), images)


def equalize(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Flattens the histogram of each channel."""
    del magnitude
    height, width, channels = images.shape[1:]
    planes = tf.transpose(images, [0, 3, 1, 2])
    planes = tf.reshape(tf.cast(planes, tf.int32), [-1, height * width])  # [nC, HW]
    count = tf.shape(planes)[0]
    codes = planes + 256 * tf.range(count)[:, None]
    histogram = tf.math.unsorted_segment_sum(
        tf.ones_like(tf.reshape(codes, [-1])), tf.reshape(codes, [-1]), count * 256
    )
    histogram = tf.reshape(histogram, [-1, 256])
    brightest = tf.reduce_max(planes, axis=1)
    num_brightest = tf.gather(histogram, brightest, batch_dims=1)
    step = ((height * width - num_brightest) // 255)[:, None]
    darker = tf.cumsum(histogram, axis=1, exclusive=True)
    table = (step // 2 + darker) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(table, 255), tf.range(256))
    flat = tf.gather(table, planes, batch_dims=1)
    flat = tf.reshape(tf.cast(flat, images.dtype), [-1, channels, height, width])
    return tf.transpose(flat, [0, 2, 3, 1])


def invert(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """255 minus each value."""
    del magnitude
    return 255 - images


def solarize(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Inverts the values at or above magnitude, a threshold in 0..256."""
    dark = tf.cast(images, tf.float32) < _per_image(magnitude)
    return tf.where(dark, images, 255 - images)


def posterize(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Keeps the highest magnitude bits, 0..8, of each value."""
    step = tf.bitwise.left_shift(1, 8 - tf.cast(magnitude, tf.int32))
    values = tf.cast(images, tf.int32)
    return tf.cast(values - values % _per_image(step), images.dtype)


def color(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Blends with the grey image: 0 is grey, 1 the image, above 1 more colourful."""
    return _blend(_grey(images), images, magnitude)


def contrast(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Blends with the image's mean grey: 0 is flat, 1 the image."""
    mean = tf.reduce_mean(tf.cast(_grey(images), tf.float64), (1, 2, 3), keepdims=True)
    return _blend(tf.floor(mean + 0.5), images, magnitude)


def brightness(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Blends with black: 0 is black, 1 the image."""
    return _blend(tf.zeros_like(images), images, magnitude)


def sharpness(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Blends with the smoothed image: 0 is smooth, 1 the image, above 1 sharper.

    Smoothing weighs the 3x3 neighbourhood 1 and its centre 5, out of 13; border pixels
    keep their value.
    """
    height, width = images.shape[1:3]
    if min(height, width) < 3:
        return images
    values = tf.cast(images, tf.int32)
    total = 4 * values[:, 1:-1, 1:-1]
    for top in range(3):
        for left in range(3):
            total += values[:, top : top + height - 2, left : left + width - 2]
    smooth = (2 * total + 13) // 26  # rounds total / 13 to nearest; no ties: 13 is odd
    inner = [[0, 0], [1, 1], [1, 1], [0, 0]]
    is_inner = tf.pad(tf.ones_like(smooth, tf.bool), inner)
    return _blend(tf.where(is_inner, tf.pad(smooth, inner), values), images, magnitude)


def _per_image(magnitude):
    return tf.reshape(magnitude, [-1, 1, 1, 1])


def _grey(images):
    """int32 [n, H, W, 1], Pillow's luma: rounded 0.299 R + 0.587 G + 0.114 B."""
    values = tf.cast(images, tf.int32)
    if images.shape[-1] == 1:
        return values
    weighted = tf.reduce_sum(values * [19595, 38470, 7471], axis=-1, keepdims=True)
    return (weighted + 32768) // 65536


def _blend(base, images, magnitude):
    """base + magnitude * (images - base), clipped to 0..255 and truncated."""
    base = tf.cast(base, tf.float32)
    blended = base + _per_image(magnitude) * (tf.cast(images, tf.float32) - base)
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), images.dtype)


def _affine(images, matrix):
    """Output pixel (x, y) is the input at (a x + b y + c, d x + e y + f), nearest.

    Coordinates are those of pixel centres, as in Pillow's `Image.transform`.

    Args:
        images: uint8 [n, H, W, C].
        matrix: (a, b, c, d, e, f), each a float or a float tensor [n].
    """
    height, width, channels = images.shape[1:]
    count = tf.shape(images)[0]
    x, y = tf.range(width)[None, None, :], tf.range(height)[None, :, None]

    def source(a, b, c):  # int32 [n, H, W]
        a, b, c = (
            tf.broadcast_to(tf.cast(value, tf.float64), [count]) for value in (a, b, c)
        )
        start = c + 0.5 * a + 0.5 * b
        a, b, start = (
            tf.cast(tf.floor(value * FIXED + 0.5), tf.int32)[:, None, None]
            for value in (a, b, start)
        )
        return tf.math.floordiv(start + a * x + b * y, FIXED)

    column, row = source(*matrix[:3]), source(*matrix[3:])
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    first_row = tf.range(count)[:, None, None] * height
    pixels = (first_row + tf.clip_by_value(row, 0, height - 1)) * width
    pixels += tf.clip_by_value(column, 0, width - 1)
    moved = tf.gather(tf.reshape(images, [-1, channels]), pixels)
    return tf.where(inside[..., None], moved, tf.constant(FILL, images.dtype))
