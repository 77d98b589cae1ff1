"""Pure tensor functions shared by the methods: per-example losses in float32.

Every function takes and returns tensors of any Keras backend and keeps the batch axis,
so that sample weights and any number of replicas can be applied exactly afterwards.
"""

from keras import ops


def cross_entropy(labels, logits):
    """Cross-entropy of each example against its integer label.

    CE[b] = -log_softmax(logits)[b, labels[b]]

    Args:
        labels: int [B], in [0, classes).
        logits: float [B, classes], any range, not softmaxed.

    Returns:
        float32 [B], in nats.

    Example:
        >>> float(cross_entropy([0], [[0.0, 0.0]])[0])  # ln 2
        0.6931471824645996
    """
    logits = ops.cast(ops.convert_to_tensor(logits), "float32")
    return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def softened_kl(target_logits, logits, temperature):
    """Kullback-Leibler divergence of softened distributions, times T squared.

    KD_T[b] = T^2 * sum_n p[b, n] * (ln p[b, n] - ln q[b, n]),
    p = softmax(sg target_logits / T), q = softmax(logits / T)

    The factor T^2 keeps the size of the gradient, T * (q - p), comparable with that of
    the cross-entropy. No gradient flows into `target_logits`.

    Args:
        target_logits: float [B, classes], the guide; any range.
        logits: float [B, classes], the guided.
        temperature: float > 0, softens both distributions. Unitless; papers use 1 to 8.

    Returns:
        float32 [B], in nats times T^2; 0 where the rows agree up to a constant.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network",
        arXiv 1503.02531 (2015), section 2.
    Departs from the source: nothing known; KL and soft cross-entropy have one gradient.

    Example:
        >>> kl = softened_kl([[2.1972246, 0.0]], [[0.0, 0.0]], temperature=2.0)
        >>> round(float(kl[0]), 4)  # 4 * (0.75 ln 1.5 + 0.25 ln 0.5)
        0.5232
    """
    target = ops.stop_gradient(
        ops.cast(ops.convert_to_tensor(target_logits), "float32")
    )
    guided = ops.cast(ops.convert_to_tensor(logits), "float32")
    log_p = ops.log_softmax(target / temperature, axis=-1)
    log_q = ops.log_softmax(guided / temperature, axis=-1)
    return temperature**2 * ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def correct(labels, scores):
    """Whether each example's highest score stands at its label.

    Args:
        labels: int [B].
        scores: float [B, classes], logits or probabilities.

    Returns:
        float32 [B], 1 where correct and 0 elsewhere.
    """
    guess = ops.argmax(scores, axis=-1)
    return ops.cast(ops.equal(guess, ops.cast(labels, guess.dtype)), "float32")


def normalize(x, axis=-1):
    """Vectors of length 1 along some axes; zero vectors stay zero.

    nrm(x) = x / max(||x||_2, 1e-12), with gradient 0 at a zero vector

    Args:
        x: float tensor.
        axis: int or tuple of ints.

    Returns:
        float32, as x.

    Example:
        >>> normalize([[3.0, 4.0]])[0][0].numpy().round(3).item()
        0.6
    """
    x = ops.cast(ops.convert_to_tensor(x), "float32")
    squares = ops.sum(ops.square(x), axis=axis, keepdims=True)
    return x * ops.rsqrt(ops.maximum(squares, 1e-24))


def pool_to_smaller(a, b):
    """Pools the larger of two maps to the size of the smaller one.

    Args:
        a, b: float [B, H, W, C], H and W known; channels may differ.

    Returns:
        The two maps, of one height and width each the smaller of the two.
    """
    size = tuple(min(m, n) for m, n in zip(a.shape[1:3], b.shape[1:3], strict=True))
    return _pool(a, size), _pool(b, size)


def _pool(x, size):
    if tuple(x.shape[1:3]) == size:
        return x
    return ops.adaptive_average_pool(x, size, data_format="channels_last")


def attention(x):
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
