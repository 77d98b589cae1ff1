"""AT: the student's maps of attention follow the teacher's."""

from keras import ops

from tf_mskd.methods import Method, losses, naming, register


@register("at")
class AT(Method):
    """Attention transfer: where a stage is active, not with which channels.

    L = sum_k CE(y, z_k) + 1000 * sum_l mean_{b,i} (A(F_s^l) - A(F_t^l))^2,
    A(F) = nrm(flatten(mean_c F^2)), one unit vector per example; F^l the map of stage l
    [B, H, W, C], the larger of the two pooled to the smaller one first. Stages are
    paired from the deep end.

    Source: Zagoruyko, Komodakis, ICLR 2017, arXiv 1612.03928, equation 2 with p = 2, in
        the form and with the weight of the CRD benchmark (mean over positions).
    Departs from the source: its VGGs have one tap more.

    Example:
        >>> AT().default_weights
        {'ce': 1.0, 'at': 1000.0}
    """

    default_weights = {"ce": 1.0, "at": 1000.0}

    def output_pairs(self, student, teacher):
        """Pairs the feature maps from the deep end."""
        return naming.from_deep_end(student, teacher, "feature")

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "at/feature_l": float32 [B]}."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            student_x, teacher_x = losses.pool_to_smaller(student_x, teacher_x)
            target = ops.stop_gradient(losses.attention(teacher_x))
            gap = losses.attention(student_x) - target
            terms[f"at/{name}"] = ops.mean(ops.square(gap), axis=-1)
        return terms
