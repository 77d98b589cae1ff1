"""Binary codes of exits, and contrasts between them: what CIB and BRCD share."""

from keras import ops

from tf_mskd.methods.common.losses import normalize
from tf_mskd.utils.types import Tensor

EPSILON = 1e-8  # inside the logarithms of the source
LEFT_OUT = -1e9  # of scores that are no negatives


def signs(outputs: Tensor) -> Tensor:
    """The code of h, -1 or 1: sign(h), 1 at 0; no gradient.

    Args:
        outputs: float [B, bits].

    Returns:
        float32 [B, bits].
    """
    return 2.0 * ops.cast(ops.convert_to_tensor(outputs) >= 0, "float32") - 1.0


def straight_through(outputs: Tensor) -> Tensor:
    """The code of h, with the gradient of sigmoid(h).

    Args:
        outputs: float [B, bits], any range.

    Returns:
        float32 [B, bits], -1 or 1.

    Example:
        >>> straight_through([[0.3, -2.0]]).numpy().round(5).tolist()
        [[1.0, -1.0]]
    """
    p = ops.sigmoid(ops.cast(ops.convert_to_tensor(outputs), "float32"))
    return ops.stop_gradient(signs(outputs) - p) + p


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the rows of a and b, float [B, bits]; of a zero vector 0."""
    return ops.sum(normalize(a) * normalize(b), axis=-1)


def symmetric_kl(one: Tensor, other: Tensor) -> Tensor:
    """Half the divergences of the bits of two views from each other.

    (KL(p || sg q) + KL(q || sg p)) / 2, KL of Bernoulli bits, summed over them

    Args:
        one, other: float [B, bits], logits of p and q.

    Returns:
        float32 [B], in nats; 0 where they agree.
    """

    def divergence(p, q):
        q = ops.stop_gradient(q)
        yes = p * (ops.log(p + EPSILON) - ops.log(q + EPSILON))
        no = (1 - p) * (ops.log(1 - p + EPSILON) - ops.log(1 - q + EPSILON))
        return ops.sum(yes + no, axis=-1)

    p, q = (ops.sigmoid(ops.cast(h, "float32")) for h in (one, other))
    return (divergence(p, q) + divergence(q, p)) / 2


def info_nce(positive: Tensor, scores: Tensor, negative: Tensor) -> Tensor:
    """- positive + ln(exp positive + sum of exp over the negatives); 0 without any.

    Args:
        positive: float [R].
        scores: float [R, R].
        negative: bool [R, R], which scores are negatives.

    Returns:
        float32 [R].
    """
    kept = ops.where(negative, scores, LEFT_OUT)
    every = ops.concatenate([positive[:, None], kept], axis=1)
    return ops.logsumexp(every, axis=1) - positive


def others(count: Tensor) -> Tensor:
    """Of two views of `count` images, one after the other: which rows show others.

    Returns:
        bool [2 * count, 2 * count], false for a row itself and its pair.
    """
    image = ops.tile(ops.arange(count), 2)
    return image[:, None] != image[None, :]
