"""Distributions over the classes or the positions of a map, laid out in planes."""

from keras import ops

from tf_mskd.utils.types import Tensor

CLASSES, POSITIONS = 1, 2  # axes of `planes`


def planes(x: Tensor) -> Tensor:
    """A map [B, h, w, C] as float32 [B, C, h * w], whose sums run over long rows."""
    x = ops.cast(ops.convert_to_tensor(x), "float32")
    x = ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))
    return ops.transpose(x, (0, 2, 1))


def planes_kl(target: Tensor, x: Tensor, temperature: float, axis: int) -> Tensor:
    """KD_T of `softmax.softened_kl` along one axis of `planes`.

    Args:
        target: float32 [B, C, n]; no gradient flows into it.
        x: float32 [B, C, n].
        temperature: float > 0.
        axis: what the distributions are over: `CLASSES` at each position, or
            `POSITIONS` in each channel.

    Returns:
        float32 [B, n] or [B, C], in nats times T^2.
    """
    target = ops.stop_gradient(target)
    log_p, log_q = (log_softmax(v / temperature, axis) for v in (target, x))
    return temperature**2 * ops.sum(ops.exp(log_p) * (log_p - log_q), axis=axis)


def log_softmax(x: Tensor, axis: int) -> Tensor:
    """Logarithm of the softmax of `planes`; the backends' own moves the axis last."""
    x = x - ops.stop_gradient(ops.max(x, axis=axis, keepdims=True))
    return x - ops.log(ops.sum(ops.exp(x), axis=axis, keepdims=True))
