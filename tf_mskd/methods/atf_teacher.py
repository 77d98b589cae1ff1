"""ATF, the teacher's side: a trained teacher moves a little towards its student."""

from keras import ops

from tf_mskd.methods import losses, register
from tf_mskd.methods.atf import ATF


@register("atf_teacher")
class ATFTeacher(ATF):
    """Tunes a teacher to the student that will learn from it.

    L_T = sum_k CE(y, z_k) + mean_b D_a(p_t || sg p_s), symbols as in `ATF`.

    The network trained is the large one, from the weights of its own run
    (--init_flagfile); in the teacher's place (--teacher_flagfile) stands the small
    network, trained plainly, which stays as it is. A few epochs at a small rate do: the
    labels keep the large network from ending up as its student. With the result as
    teacher the student is then trained by method "atf".

    Args:
        alpha: see `ATF`.
        temperature: see `ATF`.

    Source: see `ATF`.
    Reconstruction: see `ATF`. That the divergence is taken from the large network's
        distribution, and 10 epochs from a rate of 0.01, are choices made here.

    Example:
        >>> ATFTeacher().default_weights
        {'ce': 1.0, 'atf_teacher': 1.0}
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "atf_teacher": 1.0}

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "atf_teacher/exit_K": float32 [B]}."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            large = self.soften(student_x)
            small = self.soften(ops.stop_gradient(teacher_x))
            gap = losses.alpha_divergence(large, small, self.alpha)
            terms[f"atf_teacher/{name}"] = gap
        return terms
