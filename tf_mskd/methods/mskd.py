"""MSKD: the teacher's final output guides every exit of the student."""

from tf_mskd.methods import naming, ranges, register
from tf_mskd.methods.common.soft_targets import SoftTargets


@register("mskd")
class MSKD(SoftTargets):
    """Multiple-stage knowledge distillation from one output.

    L = sum_k w_k * [w_kd * KD_T(t, z_k) + w_ce * CE(y, z_k)], mean over the batch;
    z_k logits of student exit k [B, classes], t the teacher's last logits, y labels.

    Args:
        preset: see `SoftTargets`.
        temperature: see `SoftTargets`.
        guide: int, the number of the teacher's exit that guides; 0 is the last one. On
            small maps without a decoder the deepest exit is not the best.

    Raises:
        UserError: for a bad argument, or an exit that the teacher does not have.

    Source: Xu, Bai, Gao, Li, Li, Li, Zhang, "Multiple-Stage Knowledge Distillation",
        Applied Sciences 12(19):9453 (2022), doi 10.3390/app12199453.
    Reconstruction: that one final output guides every exit is documented; the balance
        of the two terms, T and equal w_k are inferred, hence arguments. The default is
        preset "repdistiller": w_ce 0.1, w_kd 0.9, T 4, w_k 1.

    Example:
        >>> MSKD(preset="hsakd").temperature
        3.0
    """

    def __init__(
        self,
        preset: str = "repdistiller",
        temperature: float | None = None,
        guide: int = 0,
        **kwargs,
    ):
        super().__init__(preset, temperature, **kwargs)
        ranges.check_at_least(0, guide=guide)
        self.guide = guide

    def output_pairs(self, student, teacher):
        """Pairs every student exit with the teacher's guide."""
        pairs = naming.every_exit(student, teacher)
        if not self.guide:
            return pairs
        guide = f"exit_{self.guide}"
        if guide not in teacher:
            self.fail(
                f"is to be guided by {guide}, the teacher has "
                f"{', '.join(naming.numbered(teacher, 'exit'))}: set guide to one of "
                "these, or 0 for the last."
            )
        return dict.fromkeys(pairs, (guide,))
