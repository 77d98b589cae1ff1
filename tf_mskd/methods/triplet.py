"""Triplet-KD: towards the teacher's output, away from images of other classes."""

from keras import ops

from tf_mskd.methods import Method, losses, naming, ranges, register, rows
from tf_mskd.tasks import softmax


@register("triplet")
class Triplet(Method):
    """Distillation by metric learning on logits.

    L = CE(y, z(x)) + KD_1(t(x), z(x))
        + 2 * max(d(t(x), z(x)) - d(t(x), z(x')) + 5, 0),  d(p, q) = ||p - q + 1e-6||_2,
    z and t logits of student and teacher [B, classes], x' an image of another class
    than x, drawn anew at each step, KD_T of `softmax.softened_kl`; mean over the batch,
    at every exit of the student, under the teacher's last one. The anchor is the
    teacher's output, both others are the student's; distances are not squared, so the
    margin is on the scale of the logits.

    Images and partners go through the student in one forward pass, in alternate rows.
    Its batch norms therefore normalise both with the statistics of all 2 B rows and
    move their own once a step; two passes would normalise each half by itself and move
    them twice. In inference both are the same.

    Args:
        margin: float >= 0, by which other classes should be farther, in logits.
        temperature: float > 0, of KD_T.

    Raises:
        UserError: if an argument is out of range.

    Source: Oki, Abe, Miyao, Kurita, "Triplet Loss for Knowledge Distillation", IJCNN
        2020, arXiv 2004.08116, and its released code.
    Departs from the source: one forward pass for two. Its run (no augmentation, batch
        100, rate 0.01, L2 1e-3) is flags.

    Example:
        >>> Triplet().default_weights
        {'ce': 1.0, 'kd': 1.0, 'triplet': 2.0}
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "kd": 1.0, "triplet": 2.0}
    label_use = "class"
    target_keys = ("label", "other_image")
    rows_per_image = 2

    def __init__(self, margin=5.0, temperature=1.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_at_least(0, margin=margin)
        ranges.check_positive(temperature=temperature)
        self.margin, self.temperature = margin, temperature

    def output_pairs(self, student, teacher):
        """Pairs every student exit with the teacher's last one."""
        return naming.every_exit(student, teacher)

    def augment(self, images, targets, student, teacher):
        """Puts image i into row 2 i and its partner of another class into row 2 i + 1.

        Targets are repeated, so odd rows carry the label of the image before them. The
        partners are removed from the targets.
        """
        images = ops.convert_to_tensor(images)
        other = ops.cast(targets["other_image"], images.dtype)
        kept = {n: value for n, value in targets.items() if n != "other_image"}
        return rows.interleave([images, other]), rows.repeat(kept, 2)

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "kd/exit_k", "triplet/exit_k": float32 [B]}.

        `student` and `targets` have 2 B rows; of the teacher even rows are read.
        """
        own = rows.first_rows(student, 2)
        terms = self.label_terms(own, rows.first_rows(targets, 2))
        for name, student_x, teacher_x in self.paired(student, teacher):
            anchor, other = teacher_x[::2], student_x[1::2]
            kl = softmax.softened_kl(anchor, own[name], self.temperature)
            terms[f"kd/{name}"] = kl
            anchor = ops.stop_gradient(anchor)
            gap = losses.triplet_margin(anchor, own[name], other, self.margin)
            terms[f"triplet/{name}"] = gap
        return terms
