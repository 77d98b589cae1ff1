"""What KD, MSKD and OtO share: labels and softened teacher logits at each exit."""

from tf_mskd.methods.common import losses
from tf_mskd.methods.common.method import Method
from tf_mskd.methods.common.ranges import check_choice, check_positive

# temperature and weights of the terms in the codes that the field compares with; lskd
# has standardised logits, even is ours
PRESETS = {
    "repdistiller": {"temperature": 4.0, "ce": 0.1, "kd": 0.9},
    "hsakd": {"temperature": 3.0, "ce": 1.0, "kd": 1.0},
    "byot": {"temperature": 3.0, "ce": 0.7, "kd": 0.3},
    "lskd": {"temperature": 2.0, "ce": 0.1, "kd": 9.0},
    "even": {"temperature": 3.0, "ce": 0.5, "kd": 0.5},
}
STANDARDIZED = ("classification", "segmentation")  # tasks whose logits are of classes


class SoftTargets(Method):
    """Base of the methods in which a teacher exit guides each student exit.

    L_k = w_kd * KD_T(u_k, z_k) + w_ce * CE(y, z_k), with KD_T of `softmax.softened_kl`;
    subclasses say in `output_pairs` which teacher exit u_k guides student exit k.

    Args:
        preset: "repdistiller" (w_ce 0.1, w_kd 0.9, T 4), "hsakd" (1, 1, 3), "byot"
            (0.7, 0.3, 3), "lskd" (0.1, 9, 2) or "even" (0.5, 0.5, 3). Sets
            `default_weights` and the temperature. With "lskd" KD_T compares
            standardised logits, of mean 0 and sample deviation 1 over the classes; the
            labels see the raw ones.
        temperature: float > 0 instead of the preset's. Unitless.

    Raises:
        UserError: for an unknown preset, a temperature that is not positive, or "lskd"
            with a task whose outputs are no logits of classes.

    Source of "lskd": Sun, Ren, Li, Wang, Cao, "Logit Standardization in Knowledge
        Distillation", CVPR 2024, arXiv 2403.01427; deviation and weights of its code.
    Source of "even": ours, chosen on held-out images (docs/our_method.md).
    """

    def __init__(self, preset="repdistiller", temperature=None, **kwargs):
        super().__init__(**kwargs)
        check_choice(PRESETS, preset=preset)
        values = PRESETS[preset]
        self.preset = preset
        self.temperature = values["temperature"] if temperature is None else temperature
        check_positive(temperature=self.temperature)
        self.default_weights = {"ce": values["ce"], "kd": values["kd"]}

    def set_task(self, task):
        """Sets what the exits answer."""
        if self.preset == "lskd" and task.name not in STANDARDIZED:
            self.fail(
                "standardises logits of classes with preset=lskd, which the task "
                f"{task.name!r} has not: take another preset."
            )
        super().set_task(task)

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "kd/exit_k": float32 [B]} for every paired exit."""
        terms = {}
        for name, student_x, teacher_x in self.paired(student, teacher):
            terms |= self.label_terms({name: student_x}, targets)
            if self.preset == "lskd":
                teacher_x, student_x = (
                    losses.standardize(x, ddof=1) for x in (teacher_x, student_x)
                )
            kd = self.task.imitation(teacher_x, student_x, self.temperature)
            terms[f"kd/{name}"] = kd
        return terms
