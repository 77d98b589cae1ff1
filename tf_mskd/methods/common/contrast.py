"""Which image a rotated one shows: what SSKD and its teacher's method compare."""

from keras import ops

from tf_mskd.methods.common.losses import normalize
from tf_mskd.methods.common.rotations import turned, upright
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.names import ROTATIONS
from tf_mskd.utils.types import Tensor


def contrast(projected: Tensor) -> Tensor:
    """Cosine of each rotated row with each unrotated one.

    Args:
        projected: float [4 * B, D].

    Returns:
        float32 [3 * B, B]; row i shows image `parents(3 * B)[i]`.

    Raises:
        UserError: if the batch is known to hold one image only.
    """
    if projected.shape[0] == ROTATIONS:
        raise UserError(
            "A contrast of images needs two or more, got a batch of one: raise "
            "--batch_size."
        )
    return cosines(turned(projected), upright(projected))


def parents(rows: int) -> Tensor:
    """The image that each of `rows` rotated rows shows: 0, 0, 0, 1, 1, 1, ..."""
    return ops.arange(rows, dtype="int32") // (ROTATIONS - 1)


def cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosine of every row with every column vector; of a zero vector 0.

    Args:
        rows: float [R, D].
        columns: float [C, D].

    Returns:
        float32 [R, C].
    """
    return ops.matmul(normalize(rows), ops.transpose(normalize(columns)))


def best_ranked(scores: Tensor, truth: Tensor, fraction: float) -> Tensor:
    """Selects the rows whose true column has the highest score, or nearly so.

    The rank of a row is the number of its entries above the true one. Selected are all
    rows of rank 0 and, of the W others, the floor(fraction * W) of lowest rank; of
    equal ranks the first rows.

    Args:
        scores: float [R, C].
        truth: int [R], the true column.
        fraction: float in [0, 1].

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
    kept = ops.floor(fraction * ops.cast(wrong, "float32"))
    return place < count - wrong + ops.cast(kept, "int32")


def mean_of(values: Tensor, kept: Tensor) -> Tensor:
    """Mean of float [R] over the rows of a mask (bool [R]); 0 if it is empty."""
    weight = ops.cast(kept, values.dtype)
    return ops.sum(values * weight) / ops.maximum(ops.sum(weight), 1.0)
