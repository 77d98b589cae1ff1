"""CCD: an augmented view counts as much as the teacher recognises it."""

from keras import ops

from tf_mskd.methods import Method, losses, naming, ranges, register, rows
from tf_mskd.tasks import softmax


@register("ccd")
class CCD(Method):
    """Cosine confidence distillation over a clean and an augmented view.

    At every exit k, over the 2 B rows of B images:
        ce = mean CE(y, z_k),  ccd = mean w * KD_T(t, z_k),
        w = 1 for a clean row and 1 + cos(t[clean], t[augmented]) for the augmented row
    of the same image, from 0 (the teacher's logits are opposite) to 2 (they are the
    same); t the teacher's last logits, z_k the student's, KD of `softmax.softened_kl`.
    Both terms have weight 1.

    The pipeline makes the augmented view: `--second_augment=jda,crop,flip` is the
    source's joint data augmentation.

    Args:
        temperature: float > 0, T. Unitless.

    Raises:
        UserError: if the temperature is not positive.

    Source: Li, Shao et al., "What Role Does Data Augmentation Play in
        Knowledge Distillation?", ACCV 2022, doi 10.1007/978-3-031-26284-5_31, in the
        form of the released code, whose factors 0.5 and 2 cancel out here.
    Departs from the source: a student with several exits, which the source has not,
        learns both terms at each of them.

    Example:
        >>> CCD().output_pairs(["exit_1", "exit_2"], ["exit_1", "exit_4"])
        {'exit_1': ('exit_4',), 'exit_2': ('exit_4',)}
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "ccd": 1.0}
    target_keys = ("label", "second_view")
    rows_per_image = 2

    def __init__(self, temperature=4.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_positive(temperature=temperature)
        self.temperature = temperature

    def output_pairs(self, student, teacher):
        """Pairs every student exit with the teacher's last one."""
        return naming.every_exit(student, teacher)

    def augment(self, images, targets, student, teacher):
        """Returns [2 * B, H, W, C]; row 2 * i is clean, row 2 * i + 1 augmented."""
        second = ops.cast(targets["second_view"], images.dtype)
        return rows.interleave([images, second]), rows.repeat(targets, 2)

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "ccd/exit_k": float32 [2 B]}."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            teacher_x = ops.stop_gradient(teacher_x)
            kl = softmax.softened_kl(teacher_x, student_x, self.temperature)
            terms[f"ccd/{name}"] = self.row_weights(teacher_x) * kl
        return terms

    def row_weights(self, logits):
        """w of each row of the teacher's logits [2 B, classes]; float32 [2 B]."""
        unit = losses.normalize(logits)
        cosine = ops.sum(unit[::2] * unit[1::2], axis=-1)
        return rows.interleave([ops.ones_like(cosine), 1.0 + cosine])
