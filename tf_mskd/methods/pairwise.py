"""Pairwise distillation: positions of a map are as alike as the teacher's are."""

from keras import ops

from tf_mskd.methods import Method, naming, ranges, register


@register("pairwise")
class Pairwise(Method):
    """The pixel and pair terms of structured distillation.

    L = sum_k CE(y, z_k) + 10 * KD_1(t_k, z_k) + 0.5 * sum_l P(F_t^l, F_s^l),
    P(t, s)[b] = 1 / n^2 * sum_ij (a^t_ij - a^s_ij)^2, a_ij the cosine of the vectors
    at positions i and j (norms + 1e-8, under a stopped gradient), n positions; F the
    last map of both networks [B, h, w, C], max-pooled to a grid of 1 / `pool` cells
    first. KD_1 is the task's imitation at temperature 1. Exits are paired from the deep
    end.

    Args:
        pool: float in (0, 1], the share of a side that a cell covers; 0 pools nothing.

    Source: Liu, Chen, Liu, Qin, Luo, Wang, "Structured Knowledge Distillation for
        Semantic Segmentation", CVPR 2019, arXiv 1903.04197, equations 1 and 2, in the
        form and with the weights of the authors' code.
    Departs from the source: without the holistic (adversarial) term.

    Example:
        >>> Pairwise().default_weights
        {'ce': 1.0, 'pixel': 10.0, 'pairwise': 0.5}
    """

    tasks = ("segmentation",)
    default_weights = {"ce": 1.0, "pixel": 10.0, "pairwise": 0.5}

    def __init__(self, pool: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        ranges.check_fraction(pool=pool)
        self.pool = pool

    def output_pairs(self, student, teacher):
        """Pairs the exits from the deep end, and the last maps."""
        pairs = naming.from_deep_end(student, teacher, "exit")
        last = naming.deepest(student, "feature", "student")
        return {**pairs, last: (naming.deepest(teacher, "feature", "teacher"),)}

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "pixel/exit_k", "pairwise/feature_K": float32 [B]}."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            if name.startswith("feature"):
                gap = affinity(student_x, self.pool)
                gap -= ops.stop_gradient(affinity(teacher_x, self.pool))
                terms[f"pairwise/{name}"] = ops.mean(ops.square(gap), axis=(1, 2))
            else:
                pixel = self.task.imitation(teacher_x, student_x, 1.0)
                terms[f"pixel/{name}"] = pixel
        return terms


def affinity(x, pool=0.0):
    """Cosines of all pairs of positions: float32 [B, n, n] of a map [B, h, w, C]."""
    x = ops.cast(ops.convert_to_tensor(x), "float32")
    if pool:
        cell = tuple(max(1, int(side * pool)) for side in x.shape[1:3])
        x = ops.max_pool(x, cell, cell, "same", data_format="channels_last")
    x = ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    norm = ops.stop_gradient(ops.sqrt(squares)) + 1e-8
    unit = x / norm
    return ops.matmul(unit, ops.transpose(unit, (0, 2, 1)))
