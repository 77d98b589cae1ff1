"""Stateless, batched image augmentation: seed and example ids in, images out."""

import math
import typing
from collections.abc import Sequence

import tensorflow as tf

from tf_mskd.data import counter_random as random
from tf_mskd.data.augment_draws import DRAWS_PER_STEP, STRONG_DRAW
from tf_mskd.data.autoaugment import autoaugment
from tf_mskd.data.contrast_views import CONTRAST_VIEWS
from tf_mskd.data.jda import joint_augmentation
from tf_mskd.utils.choices import AUGMENTATIONS, STRONG_AUGMENTATIONS
from tf_mskd.utils.errors import UserError, unknown_name

VOID = 255  # of label maps
FOLLOWED = ("crop", "flip", "rotate", "cutout")  # by label maps
MOVES = ("crop", "flip")  # that leave clean images true


def make_augment(
    names: str | Sequence[str] = ("crop", "flip"),
    *,
    crop_padding: int = 4,
    rotation_degrees: float = 20.0,
    cutout_size: int = 16,
    augment_fraction: float = 1.0,
) -> "Augmentation":
    """Makes one function that applies the named transforms in the listed order.

    Args:
        names: sequence of str, or one str with commas between, of
            "crop": pad with zeros (raw pixels, before any normalisation, so black; some
                published code does the same, some pads after normalising and so with
                the mean colour), then cut a random window of the original size;
            "flip": mirror left and right, probability 1/2;
            "rotate": uniform angle, bilinear, zeros outside;
            "autoaugment": the CIFAR-10 policy, see `autoaugment.py`;
            "jda": fourteen operations, each with probability 0.3, see `jda.py`;
            "cutout": one square of zeros, centre uniform, clipped at the borders;
            "resized_crop": a random window of half the area or more, resized, see
                `contrast_views.py`, as the next three;
            "jitter": brightness, contrast, colour and hue, with probability 0.7;
            "grey": without colour, with probability 0.2;
            "blur": Gaussian of 3x3 pixels, its deviation from 0.1 to 2;
            "none": images pass unchanged, as without names.
        crop_padding: int >= 0, pixels on each side.
        rotation_degrees: float >= 0, largest angle in degrees, either way.
        cutout_size: int >= 1, side of the square in pixels.
        augment_fraction: float in [0, 1], share of the views that have the strong part:
            all but crop and flip. Others are drawn each epoch.

    Returns:
        `Augmentation`.

    Raises:
        UserError: unknown name or option out of range.

    Example:
        >>> import tensorflow as tf
        >>> flip = make_augment("flip")
        >>> images = tf.reshape(tf.cast(tf.range(4), tf.uint8), [2, 1, 2, 1])
        >>> flip(images, tf.range(2, dtype=tf.int64), seed=0, view=0).shape
        TensorShape([2, 1, 2, 1])
    """
    names = names.split(",") if isinstance(names, str) else names
    steps = [name.strip() for name in names or ()]
    steps = [name for name in steps if name and name != "none"]
    for name in steps:
        if name not in AUGMENTATIONS:
            raise unknown_name("augmentation", name, AUGMENTATIONS)
    _check_at_least("crop_padding", crop_padding, 0)
    _check_at_least("rotation_degrees", rotation_degrees, 0)
    _check_at_least("cutout_size", cutout_size, 1)
    if not 0 <= augment_fraction <= 1:
        raise UserError(
            f"augment_fraction must be in [0, 1], got {augment_fraction!r}."
        )
    return Augmentation(
        steps, crop_padding, rotation_degrees, cutout_size, augment_fraction
    )


class Augmentation:
    """A pure function of images, their positions, a seed and a view.

    See `make_augment`. The same call gives the same geometry to images and to maps.
    """

    def __init__(self, steps, crop_padding, rotation_degrees, cutout_size, fraction):
        self._steps, self._padding = list(steps), crop_padding
        self._degrees, self._side = rotation_degrees, cutout_size
        self._fraction = fraction

    def __call__(
        self, images: tf.Tensor, ids: tf.Tensor, seed: int, view: typing.Any
    ) -> tf.Tensor:
        """Returns uint8 [B, H, W, C].

        Args:
            images: uint8 [B, H, W, C], static H, W and C; int32 for `MOVES`.
            ids: int64 [B], positions in the train split.
            seed: int, the seed of the run.
            view: int64 scalar, the epoch.
        """
        return self._apply(images, random.example_keys(seed, view, ids))

    def maps(
        self, labels: tf.Tensor, ids: tf.Tensor, seed: int, view: typing.Any
    ) -> tf.Tensor:
        """Moves label maps as the images: nearest pixel, 255 (void) from outside.

        For transforms that `check_maps` lets pass.

        Args:
            labels: int32 [B, H, W], static H and W.
            ids, seed, view: those of the images.
        """
        keys = random.example_keys(seed, view, ids)
        return self._apply(labels[..., None], keys, VOID)[..., 0]

    def check_maps(self) -> None:
        """Raises `UserError` if label maps cannot follow a transform."""
        for name in self._steps:
            if name not in FOLLOWED:
                raise UserError(
                    f"Label maps cannot follow the augmentation {name!r}: use "
                    f"{', '.join(FOLLOWED)}, or none."
                )

    def check_pictures(self) -> None:
        """Raises `UserError` if clean images do not stay true under a transform."""
        for name in self._steps:
            if name not in MOVES:
                raise UserError(
                    f"Clean images cannot follow the augmentation {name!r}: use "
                    f"{', '.join(MOVES)}, or none."
                )

    def _apply(self, images, keys, fill=0):
        steps, position = self._steps, 0
        strong = random.uniform(keys, STRONG_DRAW) < self._fraction
        while position < len(steps):
            name, draw, before = steps[position], position * DRAWS_PER_STEP, images
            if steps[position : position + 2] == ["crop", "flip"]:
                # One gather for both: the result is that of the two steps in turn.
                flipped = random.uniform(keys, draw + DRAWS_PER_STEP) < 0.5
                images = random_crop(images, keys, draw, self._padding, flipped, fill)
                position += 1
            elif name == "crop":
                images = random_crop(images, keys, draw, self._padding, fill=fill)
            elif name == "flip":
                images = flip_horizontally(images, random.uniform(keys, draw) < 0.5)
            elif name == "rotate":
                turn = 2.0 * random.uniform(keys, draw) - 1.0
                images = rotate(images, turn * self._degrees, fill)
            elif name == "autoaugment":
                images = autoaugment(images, keys, draw)
            elif name == "jda":
                images = joint_augmentation(images, keys, draw)
            elif name in CONTRAST_VIEWS:
                images = CONTRAST_VIEWS[name](images, keys, draw)
            elif not fill:  # under a square of zeros things are where they were
                images = random_cutout(images, keys, draw, self._side)
            if self._fraction < 1 and name in STRONG_AUGMENTATIONS:
                images = tf.where(strong[:, None, None, None], images, before)
            position += 1
        return images


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


def _check_at_least(name, value, least):
    if not value >= least:
        raise UserError(f"{name} must be at least {least}, got {value!r}.")
