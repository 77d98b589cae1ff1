"""CWD: each channel of the student is active where the teacher's is."""

from keras import ops

from tf_mskd.methods import Method, naming, ranges, register
from tf_mskd.tasks.planes import POSITIONS, planes, planes_kl


@register("cwd")
class CWD(Method):
    """Channel-wise distillation of the exits' maps.

    L = sum_k CE(y, z_k) + 3 * sum_k CWD_T(t_k, z_k), T = 4,
    CWD_T(t, s)[b] = T^2 / C * sum_c KL(softmax_hw(t_c / T) || softmax_hw(s_c / T)),
    softmax over the positions of each channel; z_k and t_k logits of exit k
    [B, h, w, C], exits paired from the deep end, the teacher under a stopped gradient.

    Args:
        temperature: float > 0. Unitless.

    Source: Shu, Liu, Gao, Yan, Shen, "Channel-wise Knowledge Distillation for Dense
        Prediction", ICCV 2021, arXiv 2011.13256, equations 4 and 5, weight of logits.
    Departs from the source: nothing known.

    Example:
        >>> CWD().default_weights
        {'ce': 1.0, 'cwd': 3.0}
    """

    tasks = ("segmentation",)
    default_weights = {"ce": 1.0, "cwd": 3.0}

    def __init__(self, temperature: float = 4.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_positive(temperature=temperature)
        self.temperature = temperature

    def output_pairs(self, student, teacher):
        """Pairs the exits from the deep end."""
        return naming.from_deep_end(student, teacher, "exit")

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "cwd/exit_k": float32 [B]}."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            term = channel_kl(teacher_x, student_x, self.temperature)
            terms[f"cwd/{name}"] = term
        return terms


def channel_kl(target, x, temperature):
    """CWD_T of `CWD` for maps [B, h, w, C]; no gradient flows into `target`."""
    kl = planes_kl(planes(target), planes(x), temperature, POSITIONS)
    return ops.mean(kl, axis=-1)
