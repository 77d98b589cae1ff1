"""HSAKD: the teacher's distributions over class and rotation, stage by stage."""

from tf_mskd.methods import Method, naming, ranges, register, rows
from tf_mskd.methods.common.rotations import rotations
from tf_mskd.tasks import softmax
from tf_mskd.utils.names import ROTATIONS


@register("hsakd")
class HSAKD(Method):
    """Distillation of self-supervised augmented labels behind every stage.

    L = sum_k mean over B upright rows of CE(y, z_k)
      + sum_k mean over 4 B rows of KD_T(t, z_k)
      + sum_l mean over 4 B rows of KD_T(q_t^l, q_s^l);
    rows are the four rotations of B images, z_k the logits of student exit k, t those
    of the teacher's last exit, q^l the logits of `rotation_l` over 4 * classes joint
    labels; all weights 1, KD of `softmax.softened_kl`. The student's auxiliary
    classifiers see no labels. They are paired with the teacher's from the deep end.

    The teacher's auxiliary classifiers are trained first, by method "hsakd_teacher".

    Args:
        temperature: float > 0, T. Unitless.

    Raises:
        UserError: if the temperature is not positive, a network has no classifiers
            rotation_k, or the images are not square.

    Source: Yang, An, Cai, Xu, "Hierarchical Self-supervised Augmented Knowledge
        Distillation", IJCAI 2021, arXiv 2107.13715.
    Departs from the source: a student with several exits, which the source has not,
        learns labels and the teacher's logits at each of them; numbers of stages may
        differ; the classifier behind the last stage is smaller, see `create_model`.

    Example:
        >>> HSAKD().output_pairs(["exit_2", "rotation_1"], ["exit_3", "rotation_2"])
        {'exit_2': ('exit_3',), 'rotation_1': ('rotation_2',)}
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "kd": 1.0, "hsakd": 1.0}
    rows_per_image = ROTATIONS
    aux_heads = ("rotation",)

    def __init__(self, temperature=3.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_positive(temperature=temperature)
        self.temperature = temperature

    def output_pairs(self, student, teacher):
        """Pairs exits with the teacher's last one, classifiers from the deep end."""
        remedy = "build it with create_model(aux_heads='rotation')"
        self.require(student, "rotation", "student", remedy)
        remedy = "train those heads first, with method hsakd_teacher"
        self.require(teacher, "rotation", "teacher", remedy)
        teacher_exit = naming.deepest(teacher, "exit", "teacher")
        exits = {name: (teacher_exit,) for name in naming.numbered(student, "exit")}
        return {**exits, **naming.from_deep_end(student, teacher, "rotation")}

    def augment(self, images, targets, student, teacher):
        """Returns [4 * B, H, W, C]; row 4 i + r is image i turned by r * 90 degrees."""
        return rotations(images), rows.repeat(targets, self.rows_per_image)

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "kd/exit_k": [B], "hsakd/rotation_l": [4 B]}."""
        upright = rows.first_rows(student, ROTATIONS)
        terms = self.label_terms(upright, rows.first_rows(targets, ROTATIONS))
        for name, student_x, teacher_x in self.paired(student, teacher):
            term = "kd" if naming.is_kind(name, "exit") else "hsakd"
            kl = softmax.softened_kl(teacher_x, student_x, self.temperature)
            terms[f"{term}/{name}"] = kl
        return terms
