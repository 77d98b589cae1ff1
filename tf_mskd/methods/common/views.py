"""What the methods on several views of an image share.

Rows of one image follow each other: row m * i + v is view v of image i, of m views. The
four rotations come in the order 0, 90, 180 and 270 degrees.
"""

import keras
from keras import ops

from tf_mskd.methods.common import naming
from tf_mskd.methods.common.losses import normalize
from tf_mskd.methods.common.method import Method
from tf_mskd.methods.common.ranges import check_at_least
from tf_mskd.methods.common.rows import interleave, repeat
from tf_mskd.utils.errors import UserError

NUM_ROTATIONS = 4


def rotations(images):
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
    turned = [ops.rot90(images, k, axes=(1, 2)) for k in range(NUM_ROTATIONS)]
    shape = (-1, *images.shape[1:])  # rot90 forgets it
    return interleave([ops.reshape(view, shape) for view in turned])


def random_crop(images, padding, seed):
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


def upright(x):
    """The unrotated row of each image: [4 * B, ...] to [B, ...]."""
    return x[::NUM_ROTATIONS]


def turned(x):
    """The rotated rows of each image: [4 * B, ...] to [3 * B, ...], in their order."""
    rest = tuple(x.shape[1:])
    by_image = ops.reshape(x, (-1, NUM_ROTATIONS, *rest))
    return ops.reshape(by_image[:, 1:], (-1, *rest))


def joint_labels(labels):
    """Class and rotation as one label, 4 * class + rotation.

    Args:
        labels: int [4 * B], the class in every row.

    Returns:
        int32 [4 * B], in [0, 4 * classes).

    Example:
        >>> joint_labels(ops.array([1] * 4 + [2] * 4)).numpy().tolist()
        [4, 5, 6, 7, 8, 9, 10, 11]
    """
    rotation = ops.arange(ops.shape(labels)[0], dtype="int32") % NUM_ROTATIONS
    return NUM_ROTATIONS * ops.cast(labels, "int32") + rotation


def parents(rows):
    """The image that each of `rows` rotated rows shows: 0, 0, 0, 1, 1, 1, ..."""
    return ops.arange(rows, dtype="int32") // (NUM_ROTATIONS - 1)


def cosines(rows, columns):
    """Cosine of every row with every column vector; of a zero vector 0.

    Args:
        rows: float [R, D].
        columns: float [C, D].

    Returns:
        float32 [R, C].
    """
    return ops.matmul(normalize(rows), ops.transpose(normalize(columns)))


def best_ranked(scores, truth, share):
    """Chooses the rows whose true column is right or nearly so.

    The rank of a row is the number of its entries above the true one. Kept are all rows
    of rank 0 and, of the W others, the floor(share * W) of lowest rank; of equal ranks
    the first rows.

    Args:
        scores: float [R, C].
        truth: int [R], the true column.
        share: float in [0, 1].

    Returns:
        bool [R].

    Example:
        >>> scores = ops.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> best_ranked(scores, ops.array([0, 0, 0]), 0.5).numpy().tolist()
        [True, True, False]
    """
    truth = ops.cast(truth, "int32")
    own = ops.take_along_axis(scores, truth[:, None], axis=1)
    rank = ops.sum(ops.cast(scores > own, "int32"), axis=1)
    count = ops.shape(scores)[0]
    order = rank * count + ops.arange(count, dtype="int32")  # no two are equal
    place = ops.sum(ops.cast(order[None, :] < order[:, None], "int32"), axis=1)
    wrong = ops.sum(ops.cast(rank > 0, "int32"))
    kept = ops.floor(share * ops.cast(wrong, "float32"))
    return place < count - wrong + ops.cast(kept, "int32")


def mean_of(values, kept):
    """Mean of float [R] over the rows of a mask (bool [R]); 0 if it is empty."""
    weight = ops.cast(kept, values.dtype)
    return ops.sum(values * weight) / ops.maximum(ops.sum(weight), 1.0)


def aux_heads(method, kind, names, role, remedy):
    """The outputs "kind_k" among the `names` that a network gives.

    Raises:
        UserError: if there is none; `remedy` says what to do.
    """
    found = naming.numbered(names, kind)
    if not found:
        method.fail(
            f"reads {kind}_k of the {role}, which gives {', '.join(names) or 'nothing'}"
            f": {remedy}."
        )
    return found


class RotatedCrops(Method):
    """Base of the methods on four rotations, each cropped for itself.

    Args:
        crop_padding: int >= 0, pixels of zeros on each side before the crop.

    Raises:
        UserError: if `crop_padding` is negative; for images that are not square.
    """

    rows_per_image = NUM_ROTATIONS

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
        return images, repeat(targets, NUM_ROTATIONS)

    def contrast(self, projected):
        """The cosine of each rotated row with each unrotated one.

        Args:
            projected: float [4 * B, D].

        Returns:
            float32 [3 * B, B]; row i shows image `parents(3 * B)[i]`.

        Raises:
            UserError: if the batch is known to hold one image only.
        """
        if projected.shape[0] == NUM_ROTATIONS:
            self.fail("tells images apart and got a batch of one: raise --batch_size.")
        return cosines(turned(projected), upright(projected))
