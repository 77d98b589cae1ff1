"""MSKD: the teacher's final output guides every exit of the student."""

from tf_mskd.methods import naming, register
from tf_mskd.methods.common.soft_targets import SoftTargets


@register("mskd")
class MSKD(SoftTargets):
    """Multiple-stage knowledge distillation from one output.

    L = sum_k w_k * [w_kd * KD_T(t, z_k) + w_ce * CE(y, z_k)], mean over the batch;
    z_k logits of student exit k [B, classes], t the teacher's last logits, y labels.

    Source: Xu, Bai, Gao, Li, Li, Li, Zhang, "Multiple-Stage Knowledge Distillation",
        Applied Sciences 12(19):9453 (2022), doi 10.3390/app12199453.
    Reconstruction: that one final output guides every exit is documented; the balance
        of the two terms, T and equal w_k are inferred, hence arguments. The default is
        preset "repdistiller": w_ce 0.1, w_kd 0.9, T 4, w_k 1.

    Example:
        >>> MSKD(preset="hsakd").temperature
        3.0
    """

    def output_pairs(self, student, teacher):
        """Pairs every student exit with the teacher's last one."""
        return naming.every_exit(student, teacher)
