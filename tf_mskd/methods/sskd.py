"""SSKD: the teacher's view of which image a rotated one is, beside its logits."""

from keras import ops

from tf_mskd.methods import naming, ranges, register, rows
from tf_mskd.methods.common.contrast import best_ranked, contrast, mean_of, parents
from tf_mskd.methods.common.rotations import RotatedCrops, turned, upright
from tf_mskd.tasks import softmax
from tf_mskd.utils.names import ROTATIONS


@register("sskd")
class SSKD(RotatedCrops):
    """Knowledge distillation with self-supervision on rotated views.

    Of each image there are four views: n, unrotated, and three rotated ones, a. At
    every exit k, with t the teacher's last logits and z_k the student's:
        ce = mean_n CE(y, z_k[n]),  kd = mean_n KD_T(t[n], z_k[n]),
        sskd_transformed = mean over kept a of KD_T(t[a], z_k[a]);
    and once, with C[i, j] = cos(h(a_i), h(n_j)) of the projection head h [3 B, B]:
        sskd_contrast = mean over kept i of KD_s(C_t[i], C_s[i]).
    KD of `softmax.softened_kl`. The teacher selects the rows that are kept: all those
    it ranks correctly (label or parent image above all others) and of the W others the
    floor(fraction * W) with the fewest columns above the true one; see
    `contrast.best_ranked`.

    The last two terms are means over rows that are chosen by comparing the examples of
    the local batch with each other; on several replicas each sees its own part. Views
    have a crop of their own: run it with `--augment=flip`. The teacher's projection
    head is trained first, by method "sskd_teacher".

    Args:
        temperature: float > 0, T. Unitless.
        contrast_temperature: float > 0, s. Unitless.
        transformed_fraction: float in [0, 1], of the rows with a wrong label.
        contrast_fraction: float in [0, 1], of the rows with a wrong parent.
        crop_padding: see `rotations.RotatedCrops`.

    Raises:
        UserError: if an argument is out of range, a network has no projection head, the
            images are not square, or for a batch of one.

    Source: Xu, Liu, Li, Loy, "Knowledge Distillation Meets Self-Supervision", ECCV
        2020, arXiv 2006.07114, in the form of the released code.
    Departs from the source: a student with several exits, which the source has not,
        learns ce, kd and sskd_transformed at each of them. Of rows of equal rank the
        first are kept; the source does not specify it.

    Example:
        >>> SSKD().default_weights
        {'ce': 0.1, 'kd': 0.9, 'sskd_transformed': 2.7, 'sskd_contrast': 10.0}
    """

    tasks = ("classification",)
    label_use = "class"
    default_weights = {
        "ce": 0.1,
        "kd": 0.9,
        "sskd_transformed": 2.7,
        "sskd_contrast": 10.0,
    }
    aux_heads = ("projection",)

    def __init__(
        self,
        temperature=4.0,
        contrast_temperature=0.5,
        transformed_fraction=1.0,
        contrast_fraction=0.75,
        crop_padding=4,
        **kwargs,
    ):
        super().__init__(crop_padding, **kwargs)
        ranges.check_positive(
            temperature=temperature, contrast_temperature=contrast_temperature
        )
        ranges.check_fraction(transformed_fraction=transformed_fraction)
        ranges.check_fraction(contrast_fraction=contrast_fraction)
        self.temperature = temperature
        self.contrast_temperature = contrast_temperature
        self.transformed_fraction = transformed_fraction
        self.contrast_fraction = contrast_fraction

    def output_pairs(self, student, teacher):
        """Pairs every exit with the teacher's last one, and the projection heads."""
        remedy = "build it with create_model(aux_heads='projection')"
        student_heads = self.require(student, "projection", "student", remedy)
        remedy = "train that head first, with method sskd_teacher"
        teacher_heads = self.require(teacher, "projection", "teacher", remedy)
        teacher_exit = naming.deepest(teacher, "exit", "teacher")
        exits = {name: (teacher_exit,) for name in naming.numbered(student, "exit")}
        return {**exits, student_heads[-1]: (teacher_heads[-1],)}

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "kd/exit_k": float32 [B]}, the others scalars."""
        label = targets["label"]
        upright_rows = rows.first_rows(student, ROTATIONS)
        terms = self.label_terms(upright_rows, rows.first_rows(targets, ROTATIONS))
        for name, student_x, teacher_x in self.paired(student, teacher):
            teacher_x = ops.stop_gradient(teacher_x)
            if naming.is_kind(name, "projection"):
                terms[f"sskd_contrast/{name}"] = self._contrast(student_x, teacher_x)
                continue
            kl = softmax.softened_kl(teacher_x, student_x, self.temperature)
            terms[f"kd/{name}"] = upright(kl)
            scores, truth = turned(teacher_x), turned(label)
            kept = best_ranked(scores, truth, self.transformed_fraction)
            terms[f"sskd_transformed/{name}"] = mean_of(turned(kl), kept)
        return terms

    def _contrast(self, student_x, teacher_x):
        student_x, teacher_x = contrast(student_x), contrast(teacher_x)
        truth = parents(ops.shape(teacher_x)[0])
        kept = best_ranked(teacher_x, truth, self.contrast_fraction)
        kl = softmax.softened_kl(teacher_x, student_x, self.contrast_temperature)
        return mean_of(kl, kept)
