"""DKD: knowledge of the label's class and of the other classes, weighted apart."""

from keras import ops

from tf_mskd.methods import Method, naming, ranges, register


@register("dkd")
class DKD(Method):
    """Decoupled knowledge distillation at every exit of the student.

    L = sum_k [ CE(y, z_k) + w(e) * (TCKD_k + 8 * NCKD_k) ], mean over the batch;
    TCKD = T^2 * KL([t_y, 1 - t_y] || [p_y, 1 - p_y]), NCKD = T^2 * KL(t' || p'), with
    t = softmax(t / T) of the teacher's last logits, p that of the student exit's, y the
    label, t' and p' softmax over the other classes alone. w(e) = min(e / warmup, 1) in
    epoch e = 1, 2, ... Plain KD is TCKD + (1 - t_y) * NCKD: it hardly learns from the
    other classes where the teacher is confident.

    The weights are those of the terms "dkd_target" (TCKD) and "dkd_others" (NCKD); the
    source varies the latter from 2 to 8 between pairs of networks.

    Args:
        temperature: float > 0. Unitless.
        warmup_epochs: int >= 0, epochs over which both terms reach their weight.

    Raises:
        UserError: if an argument is out of range.

    Source: Zhao, Cui, Song, Qiu, Liang, CVPR 2022, arXiv 2203.08679, equation 7.
    Departs from the source: ln(1 - p_y) comes from the odds of the label instead of a
        difference that rounds to 0; all exits of a multi-exit student learn.

    Example:
        >>> DKD(warmup_epochs=20).schedule(4, 240, [])
        {'dkd_target': 0.25, 'dkd_others': 0.25}
    """

    tasks = ("classification",)
    label_use = "class"
    default_weights = {"ce": 1.0, "dkd_target": 1.0, "dkd_others": 8.0}

    def __init__(self, temperature=4.0, warmup_epochs=20, **kwargs):
        super().__init__(**kwargs)
        ranges.check_positive(temperature=temperature)
        ranges.check_at_least(0, warmup_epochs=warmup_epochs)
        self.temperature, self.warmup_epochs = temperature, warmup_epochs

    def output_pairs(self, student, teacher):
        """Pairs every student exit with the teacher's last one."""
        return naming.every_exit(student, teacher)

    def schedule(self, epoch, epochs, history):
        """Raises the weights of both terms linearly over the first epochs."""
        factor = min((epoch + 1) / max(self.warmup_epochs, 1), 1.0)
        return {"dkd_target": factor, "dkd_others": factor}

    def call(self, student, teacher, targets):
        """Returns {"ce", "dkd_target", "dkd_others" of "/exit_k": float32 [B]}."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            target, others = decoupled_kl(
                targets["label"], teacher_x, student_x, self.temperature
            )
            terms[f"dkd_target/{name}"] = target
            terms[f"dkd_others/{name}"] = others
        return terms


def decoupled_kl(labels, target_logits, logits, temperature):
    """The divergence of the label against the rest, and that within the rest.

    Args:
        labels: int [B].
        target_logits: float [B, classes], the teacher's; no gradient flows into it.
        logits: float [B, classes], the student's.
        temperature: float > 0.

    Returns:
        (TCKD, NCKD), each float32 [B], in nats times T^2.
    """
    target_logits = ops.stop_gradient(target_logits)
    is_label = ops.one_hot(labels, logits.shape[-1], dtype="bool")
    t_label, t_rest, t_others = _logs(target_logits, is_label, temperature)
    label, rest, others = _logs(logits, is_label, temperature)
    target = ops.exp(t_label) * (t_label - label) + ops.exp(t_rest) * (t_rest - rest)
    gap = ops.where(is_label, 0.0, t_others - others)
    within = ops.sum(ops.exp(t_others) * gap, axis=-1)
    return temperature**2 * target, temperature**2 * within


def _logs(logits, is_label, temperature):
    """ln p_y, ln(1 - p_y), each [B], and ln of p' over the others [B, classes]."""
    log_p = ops.log_softmax(ops.cast(logits, "float32") / temperature, axis=-1)
    label = ops.sum(ops.where(is_label, log_p, 0.0), axis=-1)
    # e^-1e9 is 0 as well as e^-inf, but the difference of two -inf would be NaN
    others = ops.where(is_label, -1e9, log_p)
    rest = ops.logsumexp(others, axis=-1)
    # ln p_y = -softplus(-odds), ln(1 - p_y) = -softplus(odds): exact near 0, too
    odds = label - rest
    return -ops.softplus(-odds), -ops.softplus(odds), others - rest[:, None]
