"""Labels, guides and hits where the classes of an example exclude each other."""

from keras import ops

from tf_mskd.utils.types import Tensor


def cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy of each example against its label.

    CE[b] = -log_softmax(logits)[b, labels[b]], or with one-hot or soft labels
    CE[b] = -sum_n labels[b, n] * log_softmax(logits)[b, n]

    Args:
        labels: int [B], in [0, classes); or float [B, classes], of sum 1.
        logits: float [B, classes], any range, not softmaxed.

    Returns:
        float32 [B], in nats.

    Example:
        >>> float(cross_entropy([0], [[0.0, 0.0]])[0])  # ln 2
        0.6931471824645996
    """
    logits = ops.cast(ops.convert_to_tensor(logits), "float32")
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) == 2:
        probs = ops.cast(labels, "float32")
        return -ops.sum(probs * ops.log_softmax(logits, axis=-1), axis=-1)
    return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def softened_kl(target_logits: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened distributions, times T squared.

    KD_T[b] = T^2 * sum_n p[b, n] * (ln p[b, n] - ln q[b, n]),
    p = softmax(sg target_logits / T), q = softmax(logits / T)

    The factor T^2 keeps the size of the gradient, T * (q - p), comparable with that of
    the cross-entropy. No gradient flows into `target_logits`.

    Args:
        target_logits: float [B, classes], the teacher's; any range.
        logits: float [B, classes], the student's; any range.
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
    logits = ops.cast(ops.convert_to_tensor(logits), "float32")
    log_p = ops.log_softmax(target / temperature, axis=-1)
    log_q = ops.log_softmax(logits / temperature, axis=-1)
    return temperature**2 * ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def correct(labels: Tensor, scores: Tensor) -> Tensor:
    """Whether each example's highest score stands at its label.

    Args:
        labels: int [B]; or float [B, classes], of which the highest counts.
        scores: float [B, classes], logits or probabilities.

    Returns:
        float32 [B], 1 where correct and 0 elsewhere.
    """
    guess = ops.argmax(scores, axis=-1)
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) == 2:
        labels = ops.argmax(labels, axis=-1)
    return ops.cast(ops.equal(guess, ops.cast(labels, guess.dtype)), "float32")
