"""RKD: distances and angles between examples are as the teacher has them."""

from keras import ops

from tf_mskd.methods import losses, register
from tf_mskd.methods.common.relational import Relational


@register("rkd")
class RKD(Relational):
    """Relational knowledge distillation.

    L = sum_k CE(y, z_k) + 25 L_D + 50 L_A, with v the embedding before the last exit
    [B, D] (the two networks may have different D):

    L_D = mean_ij h(d^s_ij / m_s - d^t_ij / m_t), d_ij = ||v_i - v_j||_2, m the mean of
    the d_ij with i != j; the zeros of the diagonal count in the mean;
    L_A = mean_ijk h(c^s_ijk - c^t_ijk), c_ijk = cosine of the angle at i between j and
    k, 0 where two of them coincide at i;
    h(x) = x^2 / 2 if |x| < 1, else |x| - 1/2.

    The scalar terms compare the examples of the local batch with each other; on several
    replicas each sees its own part. Memory grows with B^2 (B + D).

    Source: Park, Kim, Lu, Cho, CVPR 2019, arXiv 1904.05068, equations 5 to 10, released
        code, with the weights of the CRD benchmark.
    Departs from the source: nothing known.

    Example:
        >>> v = ops.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> terms = RKD().relate(v, 3 * v + 5)
        >>> {term: round(float(value), 6) for term, value in terms.items()}
        {'rkd_distance': 0.0, 'rkd_angle': 0.0}
    """

    default_weights = {"ce": 1.0, "rkd_distance": 25.0, "rkd_angle": 50.0}

    def relate(self, student_x, teacher_x):
        """Returns {"rkd_distance", "rkd_angle": float32 scalar}."""
        distance = huber(distances(student_x) - distances(teacher_x))
        angle = huber(angles(student_x) - angles(teacher_x))
        return {"rkd_distance": ops.mean(distance), "rkd_angle": ops.mean(angle)}


def differences(v):
    """v_j - v_i at [i, j]: [B, D] to [B, B, D]."""
    return ops.expand_dims(v, 0) - ops.expand_dims(v, 1)


def distances(v):
    """Distances of all pairs, relative to the mean over i != j: [B, D] to [B, B]."""
    squares = ops.sum(ops.square(differences(v)), axis=-1)
    others = 1.0 - ops.eye(ops.shape(v)[0], dtype="float32")
    d = ops.sqrt(ops.maximum(squares, 1e-12)) * others  # finite gradient at 0
    mean = ops.sum(d) / ops.maximum(ops.sum(others), 1.0)
    return d / ops.maximum(mean, 1e-6)


def angles(v):
    """Cosine of the angle at i between j and k: [B, D] to [B, B, B]."""
    e = losses.normalize(differences(v))
    return ops.matmul(e, ops.transpose(e, (0, 2, 1)))


def huber(x):
    """x^2 / 2 if |x| < 1, else |x| - 1/2, of each entry.

    `keras.losses.huber` takes the mean over the last axis, which rounds otherwise than
    one mean over all.
    """
    size = ops.abs(x)
    return ops.where(size < 1.0, 0.5 * ops.square(x), size - 0.5)
