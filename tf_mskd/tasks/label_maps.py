"""Labels, guides and hits at every pixel; pixels labelled 255 do not count."""

from keras import ops

from tf_mskd.tasks.planes import CLASSES, planes, planes_kl
from tf_mskd.tasks.softmax import cross_entropy
from tf_mskd.utils.types import Tensor

VOID = 255


def pixel_cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy of each image, the mean over its pixels that are not void.

    CE[b] = sum over valid (i, j) of -log_softmax(logits)[b, i, j, y] / max(1, valid)

    Args:
        labels: int [B, H, W], in [0, classes) or 255 for void.
        logits: float [B, h, w, classes]; resized, bilinear, to H and W.

    Returns:
        float32 [B], in nats; 0 for an image of void alone.

    Example:
        >>> logits = [[[[0.0, 0.0], [9.0, 0.0]]]]
        >>> float(pixel_cross_entropy([[[0, 255]]], logits)[0])  # ln 2
        0.6931471824645996
    """
    logits = at_labels(logits, labels)
    valid, known = _valid(labels)
    loss = cross_entropy(known, ops.reshape(logits, (-1, logits.shape[-1])))
    return _mean_over_valid(ops.reshape(loss, ops.shape(valid)), valid)


def pixel_kl(target_logits: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """`softmax.softened_kl` of every pixel, the mean over all, void or not.

    Args:
        target_logits: float [B, h, w, classes]; no gradient flows into it.
        logits: float [B, h, w, classes].
        temperature: float > 0.

    Returns:
        float32 [B], in nats times T^2.

    Source: Liu, Chen, Liu, Qin, Luo, Wang, "Structured Knowledge Distillation for
        Semantic Segmentation", CVPR 2019, arXiv 1903.04197, equation 1, there T = 1.
    """
    kl = planes_kl(planes(target_logits), planes(logits), temperature, CLASSES)
    return ops.mean(kl, axis=-1)


def pixel_accuracy(labels: Tensor, logits: Tensor) -> Tensor:
    """The part of an image's valid pixels whose highest logit is the label's.

    Args:
        labels, logits: as for `pixel_cross_entropy`.

    Returns:
        float32 [B], in [0, 1]; 0 for an image of void alone.
    """
    told = ops.argmax(at_labels(logits, labels), axis=-1)
    valid, _ = _valid(labels)
    right = ops.equal(told, ops.cast(labels, told.dtype))
    return _mean_over_valid(ops.cast(right, "float32"), valid)


def at_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits in float32, resized to the labels' height and width, bilinear."""
    logits = ops.cast(ops.convert_to_tensor(logits), "float32")
    size = tuple(ops.convert_to_tensor(labels).shape[1:3])
    if tuple(logits.shape[1:3]) == size:
        return logits
    return ops.image.resize(logits, size, "bilinear", data_format="channels_last")


def _valid(labels):
    """float32 [B, H, W], 1 where a pixel counts; int [B * H * W], 0 where not."""
    labels = ops.convert_to_tensor(labels)
    valid = ops.not_equal(labels, VOID)
    known = ops.where(valid, labels, ops.zeros_like(labels))
    return ops.cast(valid, "float32"), ops.reshape(known, (-1,))


def _mean_over_valid(values, valid):
    count = ops.maximum(ops.sum(valid, axis=(1, 2)), 1.0)
    return ops.sum(values * valid, axis=(1, 2)) / count
