"""The four rotations of each image: 0, 90, 180 and 270 degrees counter-clockwise.

Row 4 * i + r is image i turned by r * 90 degrees, see `rows`.
"""

import keras
from keras import ops

from tf_mskd.methods.common.method import Method
from tf_mskd.methods.common.ranges import check_at_least
from tf_mskd.methods.common.rows import interleave, repeat
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.names import ROTATIONS
from tf_mskd.utils.types import Tensor


def rotations(images: Tensor) -> Tensor:
    """The four rotations of each image, counter-clockwise.

    Args:
        images: [B, H, W, C], H = W.

    Returns:
        [4 * B, H, W, C], the unrotated image first.

    Raises:
        UserError: if the images are not square.
    """
    height, width = images.shape[1:3]
    if height != width:
        raise UserError(
            f"Rotating needs square images, got {height}x{width}: set --image_size, or "
            "take a method without rotations."
        )
    turned = [ops.rot90(images, k, axes=(1, 2)) for k in range(ROTATIONS)]
    shape = (-1, *images.shape[1:])  # rot90 forgets it
    return interleave([ops.reshape(view, shape) for view in turned])


def random_crop(
    images: Tensor, padding: int, seed: keras.random.SeedGenerator
) -> Tensor:
    """Pads with zeros and cuts a window of the old size, another for every row.

    Args:
        images: [rows, H, W, C].
        padding: int >= 0, pixels on each side.
        seed: `keras.random.SeedGenerator`.

    Returns:
        As `images`.
    """
    height, width, channels = images.shape[1:]
    rows, most = ops.shape(images)[0], 2 * padding + 1
    top = keras.random.randint((rows, 1, 1), 0, most, seed=seed)
    left = keras.random.randint((rows, 1, 1), 0, most, seed=seed)
    border = (padding, padding)
    padded = ops.pad(images, ((0, 0), border, border, (0, 0)))
    high, wide = height + 2 * padding, width + 2 * padding
    line = top + ops.reshape(ops.arange(height), (1, -1, 1))
    line = line + high * ops.reshape(ops.arange(rows), (-1, 1, 1))
    pixel = line * wide + left + ops.reshape(ops.arange(width), (1, 1, -1))
    return ops.take(ops.reshape(padded, (-1, channels)), pixel, axis=0)


def upright(x: Tensor) -> Tensor:
    """The unrotated row of each image: [4 * B, ...] to [B, ...]."""
    return x[::ROTATIONS]


def turned(x: Tensor) -> Tensor:
    """The rotated rows of each image: [4 * B, ...] to [3 * B, ...], in their order."""
    rest = tuple(x.shape[1:])
    by_image = ops.reshape(x, (-1, ROTATIONS, *rest))
    return ops.reshape(by_image[:, 1:], (-1, *rest))


def joint_labels(labels: Tensor) -> Tensor:
    """Class and rotation as one label, 4 * class + rotation.

    Args:
        labels: int [4 * B], the class in every row.

    Returns:
        int32 [4 * B], in [0, 4 * classes).

    Example:
        >>> joint_labels(ops.array([1] * 4 + [2] * 4)).numpy().tolist()
        [4, 5, 6, 7, 8, 9, 10, 11]
    """
    rotation = ops.arange(ops.shape(labels)[0], dtype="int32") % ROTATIONS
    return ROTATIONS * ops.cast(labels, "int32") + rotation


class RotatedCrops(Method):
    """Base of the methods on four rotations, each cropped for itself.

    Args:
        crop_padding: int >= 0, pixels of zeros on each side before the crop.

    Raises:
        UserError: if `crop_padding` is negative; for images that are not square.
    """

    rows_per_image = ROTATIONS

    def __init__(self, crop_padding=4, **kwargs):
        super().__init__(**kwargs)
        check_at_least(0, crop_padding=crop_padding)
        self.crop_padding = crop_padding
        self.seed = keras.random.SeedGenerator()

    def augment(self, images, targets, student, teacher):
        """Returns [4 * B, H, W, C]; row 4 * i + r is image i turned by r * 90 degrees.

        Every row gets a crop of its own, the unrotated one too.
        """
        images = random_crop(rotations(images), self.crop_padding, self.seed)
        return images, repeat(targets, ROTATIONS)
