"""Bilateral distillation: a trained teacher keeps learning, from its student too."""

from tf_mskd.methods import ranges, register
from tf_mskd.methods.common.mutual import Mutual


@register("bilateral")
class Bilateral(Mutual):
    """Distillation in both directions, slowly in the one to the teacher.

    L_S = CE(y, z) + KD_T(sg t, z),  L_T = CE(y, t) + KD_T(sg z, t), T = 4,
    z and t logits of student and teacher [B, classes], KD_T of `softmax.softened_kl`;
    means over the batch, at every pair of exits, see `mutual.Mutual`. The teacher
    learns at `teacher_rate` times the student's rate. It runs in training mode: its
    batch norms use the batch and move their statistics at full speed, whatever the
    rate.

    Args:
        temperature: float > 0.
        teacher_rate: float > 0, the teacher's rate relative to the student's.

    Raises:
        UserError: if an argument is not positive.

    Source: the idea is common to several works on two-way distillation, among them
        Zhang, Xiang, Hospedales, Lu, "Deep Mutual Learning", CVPR 2018, arXiv
        1706.00384, for untrained networks.
    Reconstruction: no single publication defines it; T, the weights and the rate are
        inferred. With untrained networks, T = 1 and rate 1 it is DML.

    Example:
        >>> Bilateral(teacher_rate=0.5).teacher_rate
        0.5
    """

    default_weights = {
        "ce": 1.0,
        "bilateral": 1.0,
        "bilateral_teacher_ce": 1.0,
        "bilateral_teacher": 1.0,
    }

    def __init__(self, temperature=4.0, teacher_rate=0.1, **kwargs):
        super().__init__(temperature, **kwargs)
        ranges.check_positive(teacher_rate=teacher_rate)
        self.teacher_rate = teacher_rate
