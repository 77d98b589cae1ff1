"""CC: linear views of the embeddings agree, and so do examples with each other."""

import math

import keras
from keras import ops

from tf_mskd.methods import losses, ranges, register
from tf_mskd.methods.common.relational import Relational

FORMS = ("benchmark", "kernel")
WIDTH = 0.4  # of the Gaussian kernel
ORDER = 2  # of its Taylor series


@register("cc")
class CC(Relational):
    """Correlation congruence.

    e_s = W_s v_s + c_s and e_t = W_t v_t + c_t are linear views [B, dim] of the
    embeddings before the last exits; both learn, v_t does not.
    L = sum_k CE(y, z_k) + 0.02 * L_CC with, of the examples as they stand in the batch,

    "benchmark": L_CC = mean_{i<B} sum_d D_id * D_(i+1)d, D = |e_s - e_t|; this depends
    on the order of the batch, and the two views may shrink together;
    "kernel": L_CC = mean_ij (K(e_t) - K(e_s))_ij^2, K(e)_ij = exp(-2 g) *
    sum_{p=0..2} (2 g)^p / p! * (u_i . u_j)^p, g = 0.4, u = nrm(e).

    The scalar term compares the examples of the local batch with each other; on several
    replicas each sees its own part.

    Args:
        form: "benchmark", the code of the CRD benchmark (attributed to the authors), or
            "kernel", the paper's Gaussian kernel to second order.
        dim: int >= 1, width of the views.

    Raises:
        UserError: for an unknown form or a dim below 1.

    Source: Peng, Jin, Liu, Li, Wu, Liu, Zhou, Zhang, ICCV 2019, arXiv 1904.01802; the
        weight is the CRD benchmark's and belongs to its form.
    Departs from the source: the views' biases start at 0.

    Example:
        >>> CC(form="kernel", dim=64).default_weights
        {'ce': 1.0, 'cc': 0.02}
    """

    default_weights = {"ce": 1.0, "cc": 0.02}

    def __init__(self, form="benchmark", dim=128, **kwargs):
        super().__init__(**kwargs)
        ranges.check_choice(FORMS, form=form)
        ranges.check_at_least(1, dim=dim)
        self.form, self.dim = form, dim

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Makes the two linear views."""
        super().build(student_shape, teacher_shape, targets_shape)
        ((name, (teacher_name,)),) = self.pairs.items()
        self.embed_student = self._embed("embed_student", student_shape[name])
        self.embed_teacher = self._embed("embed_teacher", teacher_shape[teacher_name])

    def _embed(self, name, shape):
        draw = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
        dense = keras.layers.Dense(
            self.dim, kernel_initializer=draw, name=name, dtype=self.dtype_policy
        )
        dense.build(shape)
        return dense

    def relate(self, student_x, teacher_x):
        """Returns {"cc": float32 scalar}."""
        compare = kernel_gap if self.form == "kernel" else neighbour_gap
        student_x = self.embed_student(student_x)
        return {"cc": compare(student_x, self.embed_teacher(teacher_x))}


def neighbour_gap(a, b):
    """mean_{i<B} sum_d D_id D_(i+1)d with D = |a - b| [B, dim]; 0 for B = 1."""
    gap = ops.abs(a - b)
    products = ops.sum(gap[:-1] * gap[1:], axis=-1)
    pairs = ops.maximum(ops.shape(gap)[0] - 1, 1)
    return ops.sum(products) / ops.cast(pairs, "float32")


def kernel_gap(a, b):
    """Mean square of the difference of the kernels of a and b [B, dim]."""
    return ops.mean(ops.square(gaussian_kernel(a) - gaussian_kernel(b)))


def gaussian_kernel(e, width=WIDTH, order=ORDER):
    """exp(-g |u_i - u_j|^2) by the Taylor series of exp(2 g u_i . u_j): [B, B]."""
    unit = losses.normalize(e)
    product = 2.0 * width * ops.matmul(unit, ops.transpose(unit))
    series = sum(product**p / math.factorial(p) for p in range(order + 1))
    return math.exp(-2.0 * width) * series
