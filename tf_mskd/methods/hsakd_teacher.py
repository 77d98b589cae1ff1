"""HSAKD's stage before distillation: the teacher's auxiliary classifiers."""

from tf_mskd.methods import Method, naming, register, rows
from tf_mskd.methods.common.rotations import joint_labels, rotations
from tf_mskd.tasks import softmax
from tf_mskd.utils.names import ROTATIONS


@register("hsakd_teacher")
class HSAKDTeacher(Method):
    """Trains a classifier of class and rotation behind every stage.

    L = sum_k CE(y, z_k[upright]) + sum_l mean over 4 B rows of CE(4 y + r, q_l);
    z_k logits of exit k [B, classes], q_l logits of `rotation_l` [4 B, 4 * classes], y
    the class and r the rotation of a row. Both terms have weight 1.

    It trains the network it is given. Start from a trained teacher and freeze all but
    the classifiers (`--init_flagfile` with `--freeze=backbone`; the first term
    is then a constant), or train all at once.

    Raises:
        UserError: if the network has no classifiers rotation_k; for images that are not
            square.

    Source: Yang, An, Cai, Xu, "Hierarchical Self-supervised Augmented Knowledge
        Distillation", IJCAI 2021, arXiv 2107.13715.
    Departs from the source: a network with several exits, which the source has not,
        learns the labels at each of them; the classifier behind the last stage is
        smaller, see `create_model`.

    Example:
        >>> HSAKDTeacher().output_pairs(["exit_4", "rotation_3", "rotation_4"], [])
        {'exit_4': (), 'rotation_3': (), 'rotation_4': ()}
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "hsakd_teacher": 1.0}
    label_use = "class"
    rows_per_image = ROTATIONS
    aux_heads = ("rotation",)
    needs_teacher = False

    def output_pairs(self, student, teacher):
        """Reads every exit and every auxiliary classifier."""
        remedy = "build it with create_model(aux_heads='rotation')"
        heads = self.require(student, "rotation", "network", remedy)
        return dict.fromkeys((*naming.numbered(student, "exit"), *heads), ())

    def augment(self, images, targets, student, teacher):
        """Returns [4 * B, H, W, C]; row 4 i + r is image i turned by r * 90 degrees."""
        return rotations(images), rows.repeat(targets, self.rows_per_image)

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k": float32 [B], "hsakd_teacher/rotation_l": [4 B]}."""
        upright = rows.first_rows(student, ROTATIONS)
        terms = self.label_terms(upright, rows.first_rows(targets, ROTATIONS))
        joint = joint_labels(targets["label"])
        for name in naming.numbered(student, "rotation"):
            terms[f"hsakd_teacher/{name}"] = softmax.cross_entropy(joint, student[name])
        return terms
