"""Classic knowledge distillation: the last exit learns from the teacher's output."""

from tf_mskd.errors import UserError
from tf_mskd.methods.soft_targets import SoftTargets
from tf_mskd.registry import register


@register("kd")
class KD(SoftTargets):
    """The teacher's softened output guides a student with a single exit.

    L = 0.1 * CE(y, z) + 0.9 * T^2 * KL(softmax(t / T) || softmax(z / T)), T = 4,
    z student logits [B, classes], t teacher logits [B, classes]; mean over the batch.

    Source: Hinton, Vinyals, Dean, arXiv 1503.02531 (2015); weights and T of the CRD
        benchmark (Tian, Krishnan, Isola, ICLR 2020, arXiv 1910.10699).
    Departs from the source: nothing known.

    Example:
        >>> KD().default_weights
        {'ce': 0.1, 'kd': 0.9}
    """

    def guides(self, student_names, teacher_names):
        """Pairs the student's only exit with the teacher's last one."""
        if len(student_names) > 1:
            raise UserError(
                f"Method 'kd' trains one exit, the student has {len(student_names)} "
                f"({', '.join(student_names)}): build it with exits='last', or use "
                "method 'mskd'."
            )
        return {student_names[-1]: teacher_names[-1]}
