"""DIST: the student keeps the teacher's order of classes, and of examples."""

from keras import ops

from tf_mskd.methods import Method, naming, ranges, register


@register("dist")
class DIST(Method):
    """Correlation of softened outputs, within examples and within classes.

    L = sum_k [ CE(y, z_k) + 2 * inter_k + 2 * intra_k ],
    inter = T^2 * mean_b (1 - rho(P_s[b, :], P_t[b, :])),
    intra = T^2 * mean_n (1 - rho(P_s[:, n], P_t[:, n])),
    P = softmax(z / T) [B, classes] of student exit k and of the teacher's last exit,
    rho(a, b) = <a - mean a, b - mean b> / (||a - mean a|| * ||b - mean b|| + 1e-8).

    The term "dist_intra" compares the examples of the local batch with each other; on
    several replicas, each sees its own part. A class without variance counts as
    uncorrelated.

    Args:
        temperature: float > 0. Unitless; the source has 4 on CIFAR-100, 1 on ImageNet.

    Raises:
        UserError: if the temperature is not positive, or a batch has one example.

    Source: Huang, You, Wang, Qian, Xu, "Knowledge Distillation from A Stronger
        Teacher", NeurIPS 2022, arXiv 2205.10536, with the weights of its released code.
    Departs from the source: all exits of a multi-exit student learn.

    Example:
        >>> DIST().default_weights
        {'ce': 1.0, 'dist_inter': 2.0, 'dist_intra': 2.0}
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "dist_inter": 2.0, "dist_intra": 2.0}

    def __init__(self, temperature=4.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_positive(temperature=temperature)
        self.temperature = temperature

    def output_pairs(self, student, teacher):
        """Pairs every student exit with the teacher's last one."""
        return naming.every_exit(student, teacher)

    def call(self, student, teacher, targets):
        """Returns {"ce", "dist_inter" of "/exit_k": [B], "dist_intra/exit_k": scalar}.

        All float32.
        """
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            if student_x.shape[0] == 1:
                self.fail(
                    "compares the examples of a batch with each other, got batches of "
                    "one: raise --batch_size."
                )
            student_x = self._soften(student_x)
            teacher_x = ops.stop_gradient(self._soften(teacher_x))
            square = self.temperature**2
            inter = square * (1 - correlation(student_x, teacher_x, 1))
            intra = square * (1 - correlation(student_x, teacher_x, 0))
            terms[f"dist_inter/{name}"] = inter
            terms[f"dist_intra/{name}"] = ops.mean(intra)
        return terms

    def _soften(self, logits):
        return ops.softmax(ops.cast(logits, "float32") / self.temperature, axis=-1)


def correlation(a, b, axis):
    """Pearson's correlation along an axis, 0 where one side is constant.

    Args:
        a, b: float32 tensors of one shape.
        axis: int.

    Returns:
        float32, one axis less; with gradient 0 into a constant side.

    Example:
        >>> rho = correlation(ops.array([1.0, 2.0]), ops.array([5.0, 3.0]), 0)
        >>> round(float(rho), 4)
        -1.0
    """
    a, b = (x - ops.mean(x, axis=axis, keepdims=True) for x in (a, b))
    squares = [ops.sum(ops.square(x), axis=axis) for x in (a, b)]
    norms = [ops.sqrt(ops.maximum(s, 1e-24)) for s in squares]
    return ops.sum(a * b, axis=axis) / (norms[0] * norms[1] + 1e-8)
