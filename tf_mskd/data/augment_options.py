"""What the transforms of an augmentation take, and those that read images alone."""

import dataclasses
import functools
from collections.abc import Callable

from tf_mskd.data import moves
from tf_mskd.data.autoaugment import autoaugment
from tf_mskd.data.contrast_views import AREA, CONTRAST_VIEWS, RATIO, resized_crop
from tf_mskd.data.erasing import random_erase
from tf_mskd.data.jda import joint_augmentation
from tf_mskd.data.random_augment import (
    MOST,
    MOST_OPERATIONS,
    randaugment,
    trivialaugment,
)
from tf_mskd.utils.choices import ERASE_FILLS
from tf_mskd.utils.errors import UserError, unknown_name


@dataclasses.dataclass(frozen=True)
class Options:
    """What the transforms of `make_augment` take, by the names of its arguments.

    Raises:
        UserError: option out of range.
    """

    crop_padding: int = 4
    rotation_degrees: float = 20.0
    cutout_size: int = 16
    augment_fraction: float = 1.0
    crop_scale: tuple[float, ...] = AREA
    crop_ratio: tuple[float, ...] = RATIO
    randaugment_operations: int = 2
    randaugment_magnitude: float = 9.0
    erase_fill: str = "noise"

    def __post_init__(self):
        infinity = float("inf")
        _check_between("crop_padding", self.crop_padding, 0, infinity)
        _check_between("rotation_degrees", self.rotation_degrees, 0, infinity)
        _check_between("cutout_size", self.cutout_size, 1, infinity)
        _check_between("augment_fraction", self.augment_fraction, 0, 1)
        _check_bounds("crop_scale", self.crop_scale, 1)
        _check_bounds("crop_ratio", self.crop_ratio, infinity)
        count, magnitude = self.randaugment_operations, self.randaugment_magnitude
        _check_between("randaugment_operations", count, 1, MOST_OPERATIONS)
        if count != int(count):
            raise UserError(f"randaugment_operations must be whole, got {count!r}.")
        _check_between("randaugment_magnitude", magnitude, 0, MOST)
        if self.erase_fill not in ERASE_FILLS:
            raise unknown_name("erase_fill", self.erase_fill, ERASE_FILLS)

    def changes(self) -> dict[str, Callable]:
        """Returns the transforms that read the image alone, name -> function.

        Each takes images, keys and the first of its draw numbers.
        """
        partial = functools.partial
        return {
            "autoaugment": autoaugment,
            "jda": joint_augmentation,
            "randaugment": partial(
                randaugment,
                operations=self.randaugment_operations,
                magnitude=self.randaugment_magnitude,
            ),
            "trivialaugment": trivialaugment,
            "cutout": partial(moves.random_cutout, size=self.cutout_size),
            "erase": partial(random_erase, fill=self.erase_fill),
            **CONTRAST_VIEWS,
            "resized_crop": partial(
                resized_crop, scale=self.crop_scale, ratios=self.crop_ratio
            ),
        }


def _check_between(name, value, low, high):
    if low <= value <= high:
        return
    if high == float("inf"):
        raise UserError(f"{name} must be at least {low}, got {value!r}.")
    raise UserError(f"{name} must be in [{low}, {high}], got {value!r}.")


def _check_bounds(name, bounds, most):
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= most:
        range_of = "above 0" if most == float("inf") else f"in (0, {most}]"
        raise UserError(
            f"{name} must be two numbers {range_of}, the smaller first, got "
            f"{','.join(map(str, bounds))}."
        )
