"""Classic knowledge distillation: the last exit learns from the teacher's output."""

from tf_mskd.methods import naming
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

    def guides(self, student, teacher):
        """Pairs the student's only exit with the teacher's last one."""
        exits = naming.numbered(student, "exit")
        if len(exits) > 1:
            self.fail(
                f"trains one exit, the student has {len(exits)} "
                f"({', '.join(exits)}): build it with exits='last', or use "
                "method 'mskd'."
            )
        return {exits[0]: (naming.deepest(teacher, "exit", "teacher"),)}
