"""DML: two untrained networks teach each other."""

from tf_mskd.methods import register
from tf_mskd.methods.common.mutual import Mutual


@register("dml")
class DML(Mutual):
    """Deep mutual learning of two peers.

    L_1 = CE(y, z_1) + KL(sg softmax(z_2) || softmax(z_1)), L_2 with 1 and 2 exchanged,
    z_i logits of peer i [B, classes], means over the batch; at every pair of exits, see
    `mutual.Mutual`. The student is peer 1, the teacher peer 2; both run in training
    mode and learn at one rate. Give an untrained teacher (--untrained_teacher).

    Args:
        temperature: float > 0; above 1 the divergences are those of softened outputs,
            times T^2.

    Raises:
        UserError: if the temperature is not positive.

    Source: Zhang, Xiang, Hospedales, Lu, "Deep Mutual Learning", CVPR 2018, arXiv
        1706.00384.
    Departs from the source: one forward pass and one update of both, as in the
        released code; the paper updates peer 1 first and predicts again. Two peers. The
        divergence is the paper's exact one: the released code adds 1e-8 inside the
        ratio of the probabilities, 0.5 to 11 % at usual logits.

    Example:
        >>> DML().trains_teacher, DML().temperature
        (True, 1.0)
    """

    default_weights = {"ce": 1.0, "dml": 1.0, "dml_teacher_ce": 1.0, "dml_teacher": 1.0}

    def __init__(self, temperature=1.0, **kwargs):
        super().__init__(temperature, **kwargs)
