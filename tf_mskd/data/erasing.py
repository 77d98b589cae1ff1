"""Random erasing: a rectangle of an image is replaced, for whole batches."""

import tensorflow as tf

from tf_mskd.data import counter_random as random

PROBABILITY = 0.5
AREA = 0.02, 0.4  # of the rectangle, as a part of the image
RATIO = 0.3, 1 / 0.3  # height by width
ATTEMPTS = 6  # at a rectangle that fits
CHANCE, TOP, LEFT, SIZES, NOISE = 0, 1, 2, 3, 15  # the numbered draws


def random_erase(
    images: tf.Tensor, keys: tf.Tensor, draw: int, fill: str = "noise"
) -> tf.Tensor:
    """Replaces one rectangle of an image, with probability 1/2.

    Its area is uniform in 0.02 to 0.4 of the image, height by width uniform in 0.3 to
    10/3, its place uniform where it fits; it is smaller than the image in both sides.

    Args:
        images: uint8 [B, H, W, C], static H, W and C.
        keys: uint64 [B] of `counter_random.example_keys`.
        draw: int, first of the 16 draw numbers used.
        fill: "noise", a uniform value for each pixel and channel; or "black", zeros.

    Returns:
        uint8 [B, H, W, C].

    Source: Zhong, Zheng, Kang, Li, Yang, "Random Erasing Data Augmentation", AAAI 2020,
        arXiv 1708.04896; ranges of its experiments on CIFAR.
    Departs from the source: after six sizes that do not fit the image stays as it is;
        the released code tries a hundred, of which a square image needs one or two.
    """
    height, width, channels = images.shape[1:]
    tall, wide, fits = _sides(keys, draw + SIZES, height, width)
    erased = fits & (random.uniform(keys, draw + CHANCE) < PROBABILITY)

    def covered(chance, side, length):  # bool [B, length]
        free = tf.cast(length - side + 1, tf.float32)
        first = tf.minimum(tf.cast(chance * free, tf.int32), length - side)[:, None]
        place = tf.range(length)
        return (place >= first) & (place < first + side[:, None])

    rows = covered(random.uniform(keys, draw + TOP), tall, height)
    columns = covered(random.uniform(keys, draw + LEFT), wide, width)
    inside = (rows[:, :, None] & columns[:, None, :]) & erased[:, None, None]
    filling = tf.zeros([], images.dtype)
    if fill == "noise":
        filling = random.noise(keys, draw + NOISE, height * width * channels)
        filling = tf.reshape(filling, [-1, height, width, channels])
    return tf.where(inside[..., None], filling, images)


def _sides(keys, draw, height, width):
    """Sides int32 [B] of the first rectangle that fits, and whether one does."""
    tall = wide = tf.zeros_like(random.integers(keys, draw, 1))
    fits = tf.zeros_like(tall, tf.bool)
    for attempt in range(ATTEMPTS):
        area = _between(keys, draw + 2 * attempt, AREA) * (height * width)
        ratio = _between(keys, draw + 2 * attempt + 1, RATIO)
        sides = tf.sqrt(area * ratio), tf.sqrt(area / ratio)
        rows, columns = (tf.cast(tf.round(side), tf.int32) for side in sides)
        new = ~fits & (rows < height) & (columns < width)
        tall, wide = tf.where(new, rows, tall), tf.where(new, columns, wide)
        fits |= new
    return tall, wide, fits


def _between(keys, draw, bounds):
    low, high = bounds
    return low + (high - low) * random.uniform(keys, draw)
