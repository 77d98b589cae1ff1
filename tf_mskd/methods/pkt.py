"""PKT: examples are neighbours of each other with the teacher's probabilities."""

from keras import ops

from tf_mskd.methods import register
from tf_mskd.methods.common.relational import Relational

EPSILON = 1e-7


@register("pkt")
class PKT(Relational):
    """Probabilistic knowledge transfer.

    L = sum_k CE(y, z_k) + 30000 * mean_ij P_t ln((P_t + e) / (P_s + e)), e = 1e-7,
    P = K / (row sums of K), K_ij = (1 + cos(v_i, v_j)) / 2, v the embedding before the
    last exit [B, D]; the two networks may have different D. The cosine divides by
    length + e. The large weight makes up for the mean over all B^2 pairs. The scalar
    term compares the examples of the local batch with each other; on several replicas
    each sees its own part.

    Source: Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge
        Transfer", ECCV 2018, arXiv 1803.10837, released code, with the weight of the
        CRD benchmark.
    Departs from the source: zero vectors are guarded instead of replaced after they
        have become NaN; K is cut at 0 against rounding.

    Example:
        >>> student, teacher = ops.eye(2), ops.array([[1.0, 0.0], [1.0, 0.0]])
        >>> round(float(PKT().relate(student, teacher)["pkt"]), 4)
        0.0294
    """

    default_weights = {"ce": 1.0, "pkt": 30000.0}

    def relate(self, student_x, teacher_x):
        """Returns {"pkt": float32 scalar}."""
        guess, target = neighbours(student_x), neighbours(teacher_x)
        ratio = ops.log(target + EPSILON) - ops.log(guess + EPSILON)
        return {"pkt": ops.mean(target * ratio)}


def neighbours(v):
    """The probability of each example to be a neighbour of each: [B, D] to [B, B]."""
    squares = ops.sum(ops.square(v), axis=-1, keepdims=True)
    length = ops.sqrt(ops.maximum(squares, 1e-24))
    unit = v * ops.where(squares > 1e-24, 1.0 / (length + EPSILON), 0.0)
    kernel = ops.maximum((ops.matmul(unit, ops.transpose(unit)) + 1.0) / 2.0, 0.0)
    return kernel / ops.sum(kernel, axis=-1, keepdims=True)
