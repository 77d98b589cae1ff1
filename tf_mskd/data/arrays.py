"""A data set in memory: images and targets per split, and the checks on both."""

import dataclasses
import typing

import numpy as np
import psutil

from tf_mskd.utils.channel_statistics import CHANNEL_STATISTICS
from tf_mskd.utils.errors import UserError

CHANNELS = ("red", "green", "blue")  # the classes of sets whose labels are images
STREAMED = "images are decoded when they are used"  # a note
MEMORY_FRACTION = 0.6  # of the free memory; the rest is for networks and batches


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set, in a fixed order.

    Args:
        images: uint8 [N, H, W, C], a NumPy array, `np.memmap` or `StoredImages`.
        targets: dict, name -> array [N, ...], what belongs to each image; "label" is
            int [N], in [0, number of classes), unless the task has others.
    """

    images: typing.Any
    targets: dict[str, np.ndarray]

    @property
    def labels(self) -> np.ndarray:
        """The target "label"."""
        return self.targets["label"]

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the targets [N, H, W], which say something of every pixel."""
        size = self.images.shape[1:3]
        return tuple(n for n, v in self.targets.items() if v.shape[1:] == size)

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of the targets [N, H, W, C], which are images as large as the split's.

        They are moved as the images are.
        """
        shape = self.images.shape[1:]
        return tuple(n for n, v in self.targets.items() if v.shape[1:] == shape)

    @property
    def strata(self) -> np.ndarray:
        """int [N], the group of each image: its class, or 0 where it has not just one.

        A part of the split holds the same share of every group.
        """
        one_class = self.labels.ndim == 1
        return self.labels if one_class else np.zeros(len(self.labels), np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A data set: its two splits and the names of its classes.

    Args:
        name: str, the name it was asked for by.
        train: `Split` to learn from; a validation part is drawn from it by `split_ids`.
        test: `Split` that is read once, at the end.
        class_names: tuple of str; entry k names label k.
        notes: tuple of str, what reading changed or passed over, for the user.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of every image in both splits."""
        return tuple(int(size) for size in self.train.images.shape[1:])

    @property
    def mean(self) -> tuple[float, ...] | None:
        """Mean of each channel for `create_model`, or None for its default."""
        return CHANNEL_STATISTICS.get(self.name, (None, None))[0]

    @property
    def std(self) -> tuple[float, ...] | None:
        """Standard deviation of each channel, or None for the default."""
        return CHANNEL_STATISTICS.get(self.name, (None, None))[1]


def check_image_size(image_size: typing.Any) -> None:
    """Raises `UserError` unless `image_size` is None or a whole number of pixels >= 1.

    One number is the height and the width: resized images are square.
    """
    whole = isinstance(image_size, int | np.integer) and not isinstance(
        image_size, bool
    )
    if image_size is not None and not (whole and image_size >= 1):
        raise UserError(
            f"image_size must be a whole number of pixels >= 1, got {image_size!r}."
        )


def check_memory(
    name: str,
    num_images: int,
    image_shape: tuple[int, ...],
    available: int | None = None,
    maps: int = 0,
    more: str = "",
) -> None:
    """Refuses a data set that would not fit, before anything is decoded.

    Args:
        name: str, for the message.
        num_images: int, images of all splits together.
        image_shape: (H, W, C) after resizing.
        available: free memory in bytes; None asks the operating system.
        maps: int, label maps of each image, a byte a pixel.
        more: str, what else may be done, for the end of the message.

    Raises:
        UserError: if the pixels need more than 60 % of the free memory.
    """
    if available is None:
        available = psutil.virtual_memory().available
    if not fits_memory(num_images, image_shape, available, maps):
        height, width, channels = image_shape
        needed = num_images * height * width * (channels + maps)
        with_maps = " with masks" if maps else ""
        raise UserError(
            f"Data set {name!r} needs {needed / 1e9:.1f} GB of memory ({num_images} "
            f"images of {height}x{width}x{channels}{with_maps}); at most "
            f"{MEMORY_FRACTION:.0%} of the {available / 1e9:.1f} GB of free memory may "
            f"be used: set a smaller --image_size{more}."
        )


def fits_memory(
    num_images: int,
    image_shape: tuple[int, ...],
    available: int | None = None,
    maps: int = 0,
) -> bool:
    """Returns whether the images need at most 60 % of the free memory.

    Args: those of `check_memory`.

    Example:
        >>> fits_memory(1000, (8, 8, 3), available=1_000_000)
        True
    """
    if available is None:
        available = psutil.virtual_memory().available
    height, width, channels = image_shape
    needed = num_images * height * width * (channels + maps)
    return needed <= MEMORY_FRACTION * available


def check_labels(
    name: str, split_name: str, labels: np.ndarray, num_classes: int
) -> None:
    """Raises `UserError` at the first label outside [0, num_classes).

    Args:
        name: str, the data set.
        split_name: str, "train" or "test".
        labels: int [N].
        num_classes: int.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        position = int(wrong[0])
        raise UserError(
            f"Labels of {name!r} must be in [0, {num_classes}), got "
            f"{int(labels[position])} at position {position} of split "
            f"{split_name!r}; fix the data set."
        )
