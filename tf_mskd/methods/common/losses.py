"""Pure tensor functions shared by the methods: per-example losses in float32.

Every function takes and returns tensors of any Keras backend and keeps the batch axis,
so that sample weights and any number of replicas can be applied exactly afterwards.
"""

from keras import ops

from tf_mskd.utils.types import Tensor


def normalize(x: Tensor, axis: int | tuple[int, ...] = -1) -> Tensor:
    """Vectors of length 1 along some axes; zero vectors stay zero.

    nrm(x) = x / ||x||_2, or 0 with gradient 0 where the length is below 1e-12

    Args:
        x: float tensor.
        axis: int or tuple of ints.

    Returns:
        float32, as x.

    Unlike `keras.ops.normalize`, whose gradient at a zero vector is 1e7 (Keras 3.15).

    Example:
        >>> round(float(normalize([[3.0, 4.0]])[0][0]), 3)
        0.6
    """
    x = ops.cast(ops.convert_to_tensor(x), "float32")
    squares = ops.sum(ops.square(x), axis=axis, keepdims=True)
    scale = ops.rsqrt(ops.maximum(squares, 1e-24))
    return x * ops.where(squares > 1e-24, scale, 0.0)


def pool_to_smaller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Pools the larger of two maps to the size of the smaller one.

    Args:
        a, b: float [B, H, W, C], H and W known; channels may differ.

    Returns:
        The two maps, of one height and width each the smaller of the two.
    """
    size = tuple(min(m, n) for m, n in zip(a.shape[1:3], b.shape[1:3], strict=True))
    return average_pool(a, size), average_pool(b, size)


def average_pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Averages a map over windows that cover it evenly.

    Row i of h is the mean of rows floor(i H / h) up to ceil((i + 1) H / h); columns
    likewise. Windows overlap where h does not divide H, and repeat rows where h > H.

    Args:
        x: float [B, H, W, C], H and W known.
        size: (int, int), h and w of the result.

    Returns:
        float [B, h, w, C].

    The same as `keras.ops.adaptive_average_pool`, which in Keras 3.15 cannot pool to a
    single row in a graph.

    Example:
        >>> x = [[[[0.0], [1.0]], [[2.0], [3.0]]]]
        >>> average_pool(x, (1, 2)).numpy().tolist()
        [[[[1.0], [2.0]]]]
    """
    x = ops.convert_to_tensor(x)
    return _average_axis(_average_axis(x, 1, size[0]), 2, size[1])


def _average_axis(x, axis, count):
    length = x.shape[axis]
    if length == count:
        return x
    if length % count == 0:
        parts = (*x.shape[1:axis], count, length // count, *x.shape[axis + 1 :])
        return ops.mean(ops.reshape(x, (-1, *parts)), axis=axis + 1)
    ends = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
    parts = [x[:, i:j] if axis == 1 else x[:, :, i:j] for i, j in ends]
    return ops.stack([ops.mean(part, axis=axis) for part in parts], axis=axis)


def attention(x: Tensor) -> Tensor:
    """Where a map is active: its energy over channels, as a unit vector.

    A(F)[b] = nrm(flatten(mean_c F[b]^2))

    Args:
        x: float [B, H, W, C].

    Returns:
        float32 [B, H * W].

    Source: Zagoruyko, Komodakis, ICLR 2017, arXiv 1612.03928, section 3.1, p = 2.

    Example:
        >>> attention([[[[3.0 ** 0.5], [2.0]]]]).numpy().round(3).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    x = ops.cast(ops.convert_to_tensor(x), "float32")
    energy = ops.mean(ops.square(x), axis=-1)
    return normalize(ops.reshape(energy, (-1, x.shape[1] * x.shape[2])))


def triplet_margin(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float
) -> Tensor:
    """How far the positive is from being closer to the anchor than the negative.

    tri[b] = max(d(anchor, positive) - d(anchor, negative) + margin, 0),
    d(p, q) = ||p - q + 1e-6||_2, not squared

    Args:
        anchor, positive, negative: float [B, D]; the caller stops gradients.
        margin: float, in units of the distance.

    Returns:
        float32 [B], at least 0.

    Source: Schroff, Kalenichenko, Philbin, CVPR 2015, arXiv 1503.03832, with distances
        instead of their squares; the 1e-6 is that of PyTorch's pairwise distance.

    Example:
        >>> far = triplet_margin([[0.0, 0.0]], [[3.0, 4.0]], [[0.0, 1.0]], margin=1.0)
        >>> round(float(far[0]), 3)
        5.0
    """
    anchor, positive, negative = (
        ops.cast(ops.convert_to_tensor(x), "float32")
        for x in (anchor, positive, negative)
    )

    def distance(p, q):
        squares = ops.sum(ops.square(p - q + 1e-6), axis=-1)
        return ops.sqrt(ops.maximum(squares, 1e-12))  # finite gradient at 0

    return ops.relu(distance(anchor, positive) - distance(anchor, negative) + margin)


def standardize(x: Tensor, ddof: int = 0) -> Tensor:
    """Rows of mean 0 and deviation 1.

    n(z) = (z - mean z) / (std z + 1e-7), std z = sqrt(sum (z - mean z)^2 / (D - ddof))

    Args:
        x: float [..., D].
        ddof: int, 0 for the deviation of the population, 1 for that of a sample.

    Returns:
        float32 [..., D]; 0 for a row of equal entries.

    Example:
        >>> standardize([[1.0, 3.0]]).numpy().round(3).tolist()
        [[-1.0, 1.0]]
    """
    x = ops.cast(ops.convert_to_tensor(x), "float32")
    x = x - ops.mean(x, axis=-1, keepdims=True)
    variance = ops.sum(ops.square(x), axis=-1, keepdims=True) / (x.shape[-1] - ddof)
    return x / (ops.sqrt(ops.maximum(variance, 1e-12)) + 1e-7)


def alpha_divergence(logits: Tensor, other_logits: Tensor, alpha: float) -> Tensor:
    """Amari's divergence of two distributions, of which KL is a limit either way.

    D_a(p || q)[b] = (sum_n p^a q^(1-a) - 1) / (a (a - 1)),
    p = softmax(logits), q = softmax(other_logits);
    KL(p || q) for a -> 1, KL(q || p) for a -> 0, symmetric for a = 1/2

    Args:
        logits, other_logits: float [B, classes]; the caller stops gradients.
        alpha: float; within 1e-4 of 0 and of 1 the limits are taken.

    Returns:
        float32 [B], at least 0.

    Example:
        >>> p, q = [[1.0986123, 0.0]], [[0.0, 0.0]]  # (3/4, 1/4) and (1/2, 1/2)
        >>> round(float(alpha_divergence(p, q, alpha=2.0)[0]), 4)
        0.125
    """
    log_p, log_q = (
        ops.log_softmax(ops.cast(ops.convert_to_tensor(z), "float32"), axis=-1)
        for z in (logits, other_logits)
    )
    if abs(alpha) < 1e-4:
        return ops.sum(ops.exp(log_q) * (log_q - log_p), axis=-1)
    if abs(alpha - 1) < 1e-4:
        return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)
    mixed = ops.sum(ops.exp(alpha * log_p + (1 - alpha) * log_q), axis=-1)
    return (mixed - 1) / (alpha * (alpha - 1))
