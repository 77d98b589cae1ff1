"""ATF, the student's side: standardized logits by an alpha-divergence."""

from keras import ops

from tf_mskd.methods import Method, losses, naming, ranges, register


@register("atf")
class ATF(Method):
    """Distillation from a teacher that was tuned to its student.

    L_S = sum_k CE(y, z_k) + 9 * mean_b D_a(sg p_t || p_s),
    p = softmax(n(z) / T), n(z) = (z - mean z) / std z over the classes; z the last
    logits of teacher (t) and student (s) [B, classes], D_a of
    `losses.alpha_divergence`. The teacher is one that method "atf_teacher" has trained.

    Args:
        alpha: float, a; 1 is KL(p_t || p_s), 0 is KL(p_s || p_t).
        temperature: float > 0, T.

    Raises:
        UserError: for a temperature that is not positive.

    Source: "Adaptive Teacher Finetune: Towards high-performance knowledge distillation
        through adaptive fine-tuning".
    Reconstruction: known are the normalised logits, the alpha-divergence and a teacher
        tuned with information from the student. The form of the losses, a = 1/2, T = 1
        and the weights, 9 here and 1 for the teacher, are choices made here.

    Example:
        >>> ATF().default_weights
        {'ce': 1.0, 'atf': 9.0}
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "atf": 9.0}

    def __init__(self, alpha=0.5, temperature=1.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_positive(temperature=temperature)
        self.alpha, self.temperature = alpha, temperature

    def output_pairs(self, student, teacher):
        """Pairs the last exits."""
        teacher_exit = naming.deepest(teacher, "exit", "teacher")
        return {naming.deepest(student, "exit", "student"): (teacher_exit,)}

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "atf/exit_K": float32 [B]}."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            target = self.soften(ops.stop_gradient(teacher_x))
            logits = self.soften(student_x)
            terms[f"atf/{name}"] = losses.alpha_divergence(target, logits, self.alpha)
        return terms

    def soften(self, logits):
        """Standardized logits divided by the temperature, float32 [B, classes]."""
        return losses.standardize(logits) / self.temperature
