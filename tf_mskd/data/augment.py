"""Stateless, batched image augmentation: seed and example ids in, images out."""

import typing
from collections.abc import Sequence

import tensorflow as tf

from tf_mskd.data import counter_random as random
from tf_mskd.data import moves
from tf_mskd.data.augment_draws import DRAWS_PER_STEP, STRONG_DRAW
from tf_mskd.data.augment_options import Options
from tf_mskd.data.contrast_views import AREA, RATIO, window_draws
from tf_mskd.utils.choices import AUGMENTATIONS, STRONG_AUGMENTATIONS
from tf_mskd.utils.errors import UserError, unknown_name

VOID = 255  # of label maps
FOLLOWED = ("crop", "flip", "rotate", "cutout", "erase")  # by label maps
MOVES = ("crop", "flip")  # that leave clean images true
SOURCE_CROP = "source_crop"


def make_augment(
    names: str | Sequence[str] = ("crop", "flip"),
    *,
    crop_padding: int = 4,
    rotation_degrees: float = 20.0,
    cutout_size: int = 16,
    augment_fraction: float = 1.0,
    crop_scale: tuple[float, float] = AREA,
    crop_ratio: tuple[float, float] = RATIO,
    randaugment_operations: int = 2,
    randaugment_magnitude: float = 9.0,
    erase_fill: str = "noise",
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
            "randaugment", "trivialaugment": random operations of random or given
                strength, see `random_augment.py`;
            "erase": one random rectangle is replaced, see `erasing.py`;
            "resized_crop": a random window of half the area or more, resized, see
                `contrast_views.py`, as the next three;
            "source_crop": the same of the image as it is stored, before it gets its
                size, so that it keeps its detail; comes first, and needs images that
                are streamed, see `window.py`;
            "jitter": brightness, contrast, colour and hue, with probability 0.7;
            "grey": without colour, with probability 0.2;
            "blur": Gaussian of 3x3 pixels, its deviation from 0.1 to 2;
            "none": images pass unchanged, as without names.
        crop_padding: int >= 0, pixels on each side.
        rotation_degrees: float >= 0, largest angle in degrees, either way.
        cutout_size: int >= 1, side of the square in pixels.
        augment_fraction: float in [0, 1], share of the views that have the strong part:
            all but crop and flip. Others are drawn each epoch.
        crop_scale: two floats in (0, 1], bounds of the area of "resized_crop" and
            "source_crop", as a part of the image; (0.08, 1) is usual for ImageNet.
        crop_ratio: two floats > 0, bounds of its width by height.
        randaugment_operations: int N in [1, 8], operations of "randaugment".
        randaugment_magnitude: float M in [0, 10], their magnitude.
        erase_fill: what "erase" puts in place, "noise" or "black".

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
    if SOURCE_CROP in steps[1:]:
        raise UserError(
            f"{SOURCE_CROP} reads the image, so it must be the first augmentation, got "
            f"{','.join(steps)}."
        )
    options = Options(
        crop_padding,
        rotation_degrees,
        cutout_size,
        augment_fraction,
        tuple(crop_scale),
        tuple(crop_ratio),
        randaugment_operations,
        randaugment_magnitude,
        erase_fill,
    )
    return Augmentation(steps, options)


class Augmentation:
    """A pure function of images, their positions, a seed and a view.

    See `make_augment`. The same call gives the same geometry to images and to maps.

    Attributes:
        cuts_files: bool, whether the images that it takes must be the windows of files
            that `windows` draws.
    """

    def __init__(self, steps: Sequence[str], options: Options):
        self._steps, self._options = list(steps), options
        self._changes = options.changes()
        self.cuts_files = SOURCE_CROP in self._steps

    def windows(self, ids: tf.Tensor, seed: int, view: typing.Any) -> tf.Tensor:
        """Returns the draws of "source_crop", float32 [B, 4], see `window.place`.

        Args:
            ids, seed, view: as of the images.
        """
        keys = random.example_keys(seed, view, ids)
        scale, ratio = self._options.crop_scale, self._options.crop_ratio
        return tf.stack(window_draws(keys, 0, scale, ratio), axis=1)

    def __call__(
        self, images: tf.Tensor, ids: tf.Tensor, seed: int, view: typing.Any
    ) -> tf.Tensor:
        """Returns uint8 [B, H, W, C].

        Args:
            images: uint8 [B, H, W, C], static H, W and C; int32 for `MOVES`.
            ids: int64 [B], positions in the train split.
            seed: int, the seed of the run.
            view: int64 scalar, the epoch, or [B], one for each.
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
        fraction, padding = self._options.augment_fraction, self._options.crop_padding
        strong = random.uniform(keys, STRONG_DRAW) < fraction
        while position < len(steps):
            name, draw, before = steps[position], position * DRAWS_PER_STEP, images
            if steps[position : position + 2] == ["crop", "flip"]:
                # One gather for both: the result is that of the two steps in turn.
                flipped = random.uniform(keys, draw + DRAWS_PER_STEP) < 0.5
                images = moves.random_crop(images, keys, draw, padding, flipped, fill)
                position += 1
            else:
                images = self._changed(name, images, keys, draw, fill)
            if fraction < 1 and name in STRONG_AUGMENTATIONS:
                images = tf.where(strong[:, None, None, None], images, before)
            position += 1
        return images

    def _changed(self, name, images, keys, draw, fill):
        """The images under one transform."""
        if name == SOURCE_CROP:
            return images  # cut when they were read
        if name == "crop":
            padding = self._options.crop_padding
            return moves.random_crop(images, keys, draw, padding, fill=fill)
        if name == "flip":
            return moves.flip_horizontally(images, random.uniform(keys, draw) < 0.5)
        if name == "rotate":
            turn = 2.0 * random.uniform(keys, draw) - 1.0
            return moves.rotate(images, turn * self._options.rotation_degrees, fill)
        if fill:  # under a square of zeros things are where they were
            return images
        return self._changes[name](images, keys, draw)
