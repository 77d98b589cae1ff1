"""Classic knowledge distillation: the last exit learns from the teacher's output."""

from tf_mskd.methods import naming, ranges, register
from tf_mskd.methods.common.soft_targets import SoftTargets


@register("kd")
class KD(SoftTargets):
    """The teacher's softened output guides a student with a single exit.

    L = 0.1 * CE(y, z) + 0.9 * T^2 * KL(softmax(t / T) || softmax(z / T)), T = 4,
    z student logits [B, classes], t teacher logits [B, classes]; mean over the batch.

    Args:
        preset: see `SoftTargets`.
        temperature: see `SoftTargets`.
        decay: float > 0, the weight of "kd" in the first epoch as a multiple of its
            weight in the last one; linear between. 1 keeps it, 4 is that of FitNet.

    Raises:
        UserError: for a bad argument, or a student of several exits.

    Source: Hinton, Vinyals, Dean, arXiv 1503.02531 (2015); weights and T of the CRD
        benchmark (Tian, Krishnan, Isola, ICLR 2020, arXiv 1910.10699).
    Departs from the source: nothing known.

    Example:
        >>> KD().default_weights
        {'ce': 0.1, 'kd': 0.9}
    """

    def __init__(
        self,
        preset: str = "repdistiller",
        temperature: float | None = None,
        decay: float = 1.0,
        **kwargs,
    ):
        super().__init__(preset, temperature, **kwargs)
        ranges.check_positive(decay=decay)
        self.decay = decay

    def output_pairs(self, student, teacher):
        """Pairs the student's only exit with the teacher's last one."""
        exits = naming.numbered(student, "exit")
        if len(exits) > 1:
            self.fail(
                f"trains one exit, the student has {len(exits)} "
                f"({', '.join(exits)}): build it with exits='last', or use "
                "method 'mskd'."
            )
        return {exits[0]: (naming.deepest(teacher, "exit", "teacher"),)}

    def schedule(self, epoch, epochs, history):
        """Returns {"kd": factor}, which falls from `decay` to 1 over the run."""
        if self.decay == 1:
            return {}
        done = epoch / max(1, epochs - 1)
        return {"kd": self.decay + (1.0 - self.decay) * done}
