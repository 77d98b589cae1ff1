"""SP: examples that are alike for the teacher are alike for the student."""

import math

from keras import ops

from tf_mskd.methods import losses, register
from tf_mskd.methods.common.relational import Relational


@register("sp")
class SP(Relational):
    """Similarity-preserving distillation.

    L = sum_k CE(y, z_k) + 3000 * 1/B^2 * sum_ij (G_s - G_t)_ij^2, G = nrm(Q Q^T) with
    rows of length 1, Q the last feature map as rows [B, H * W * C]. Sizes and channels
    of the two networks may differ; the value depends on the size of the batch. The
    scalar term compares the examples of the local batch with each other; on several
    replicas each sees its own part.

    Source: Tung, Mori, ICCV 2019, arXiv 1907.09682, equations 2 to 4, with the weight
        of the CRD benchmark.
    Departs from the source: one tap, the last stage, as the CRD benchmark; the paper
        may sum over several pairs of layers.

    Example:
        >>> student, teacher = ops.eye(2), ops.array([[1.0, 0.0], [1.0, 0.0]])
        >>> round(float(SP().relate(student, teacher)["sp"]), 4)  # 1 - 0.5 ** 0.5
        0.2929
    """

    default_weights = {"ce": 1.0, "sp": 3000.0}
    reads = "feature"

    def relate(self, student_x, teacher_x):
        """Returns {"sp": float32 scalar}."""
        gap = similarity(student_x) - similarity(teacher_x)
        return {"sp": ops.mean(ops.square(gap))}


def similarity(x):
    """Inner products of all pairs of rows of [B, ...], each row of length 1: [B, B]."""
    rows = ops.reshape(x, (-1, math.prod(x.shape[1:])))
    return losses.normalize(ops.matmul(rows, ops.transpose(rows)))
