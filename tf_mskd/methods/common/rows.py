"""Rows of one batch that belong to one image.

Rows of one image follow each other: row m * i + v is row v of image i, of m an image;
v = 0 is the image as it would be without the method.
"""

from keras import ops

from tf_mskd.utils.types import Tensor, Tensors


def interleave(batches: list) -> Tensor:
    """Joins m batches so that the rows of one image follow each other.

    Args:
        batches: list of m tensors [B, ...] of one shape.

    Returns:
        [m * B, ...].

    Example:
        >>> interleave([ops.array([1, 2]), ops.array([3, 4])]).numpy().tolist()
        [1, 3, 2, 4]
    """
    stacked = ops.stack(batches, axis=1)  # [B, m, ...]
    return ops.reshape(stacked, (-1, *batches[0].shape[1:]))


def repeat(targets: Tensors, count: int) -> Tensors:
    """Repeats the targets of each image for each of its `count` rows.

    Args:
        targets: dict of tensors [B, ...].
        count: int >= 1.

    Returns:
        dict of tensors [count * B, ...].
    """
    return {name: interleave([value] * count) for name, value in targets.items()}


def first_rows(tensors: Tensors, count: int) -> Tensors:
    """Selects the first of the `count` rows of each image.

    Args:
        tensors: dict of tensors [count * B, ...].
        count: int >= 1.

    Returns:
        dict of tensors [B, ...].

    Example:
        >>> first_rows({"label": ops.array([4, 4, 7, 7])}, 2)["label"].numpy().tolist()
        [4, 7]
    """
    return {name: value[::count] for name, value in tensors.items()}


def mean_over_rows(value, num_images):
    """Returns each image's mean over the rows that a term has of it.

    Args:
        value: float [B], [rows_per_image * B] or scalar; a scalar stays as it is.
        num_images: int or int scalar tensor, B.

    Returns:
        float [B] or scalar.

    Example:
        >>> mean_over_rows(ops.array([1.0, 3.0, 5.0, 5.0]), 2).numpy().tolist()
        [2.0, 5.0]
    """
    if not len(value.shape):  # a TensorShape is true, the empty one too
        return value
    return ops.mean(ops.reshape(value, (num_images, -1)), axis=1)
