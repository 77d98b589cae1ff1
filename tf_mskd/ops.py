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
