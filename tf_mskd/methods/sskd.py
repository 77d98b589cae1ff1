"""SSKD: the teacher's view of which image a rotated one is, beside its logits."""

from keras import ops

from tf_mskd.methods.common import naming
from tf_mskd.methods.common.contrast import best_ranked, contrast, mean_of, parents
from tf_mskd.methods.common.losses import softened_kl
from tf_mskd.methods.common.ranges import check_fraction, check_positive
from tf_mskd.methods.common.registry import register
from tf_mskd.methods.common.rotations import RotatedCrops, turned, upright
from tf_mskd.methods.common.rows import first_rows
from tf_mskd.utils.names import ROTATIONS


@register("sskd")
class SSKD(RotatedCrops):
    """Knowledge distillation with self-supervision on rotated

    Of each image there are four views: n, unrotated, and three rotated ones, a. At
    every exit k, with t the teacher's last logits and z_k the student's:
        ce = mean_n CE(y, z_k[n]),  kd = mean_n KD_T(t[n], z_k[n]),
        sskd_transformed = mean over kept a of KD_T(t[a], z_k[a]);
    and once, with C[i, j] = cos(h(a_i), h(n_j)) of the projection head h [3 B, B]:
        sskd_contrast = mean over kept i of KD_s(C_t[i], C_s[i]).
    KD of `ops.softened_kl`. The teacher says which rows are kept: all those it gets
    right (label or parent image above all others) and of the W others the
    floor(fraction * W) with the fewest columns above the true one; see
    `contrast.best_ranked`.

    The last two terms are means over rows that are chosen by comparing the examples of
    the local batch with each other; on several replicas each sees its own part. Views
    have a crop of their own: run it with `--augment=flip`. The teacher needs a trained
    projection head, which method "sskd_teacher" gives.

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
        first are kept; the source leaves that open.

    Example:
        >>> SSKD().default_weights
        {'ce': 0.1, 'kd': 0.9, 'sskd_transformed': 2.7, 'sskd_contrast': 10.0}
    """

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
        check_positive(
            temperature=temperature, contrast_temperature=contrast_temperature
        )
        check_fraction(transformed_fraction=transformed_fraction)
        check_fraction(contrast_fraction=contrast_fraction)
        self.temperature = temperature
        self.contrast_temperature = contrast_temperature
        self.transformed_fraction = transformed_fraction
        self.contrast_fraction = contrast_fraction

    def output_pairs(self, student, teacher):
        """Pairs every exit with the teacher's last one, and the projection heads."""
        remedy = "build it with create_model(aux_heads='projection')"
        ours = self.require(student, "projection", "student", remedy)
        remedy = "train that head first, with method sskd_teacher"
        theirs = self.require(teacher, "projection", "teacher", remedy)
        guide = naming.deepest(teacher, "exit", "teacher")
        exits = {name: (guide,) for name in naming.numbered(student, "exit")}
        return {**exits, ours[-1]: (theirs[-1],)}

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "kd/exit_k": float32 [B]}, the others scalars."""
        label = targets["label"]
        upright_rows = first_rows(student, ROTATIONS)
        terms = self.label_terms(upright_rows, first_rows(targets, ROTATIONS))
        for name, (guide,) in self.active_pairs(student):
            ours, theirs = student[name], ops.stop_gradient(teacher[guide])
            if naming.is_kind(name, "projection"):
                terms[f"sskd_contrast/{name}"] = self._contrast_term(ours, theirs)
                continue
            kl = softened_kl(theirs, ours, self.temperature)
            terms[f"kd/{name}"] = upright(kl)
            scores, truth = turned(theirs), turned(label)
            kept = best_ranked(scores, truth, self.transformed_fraction)
            terms[f"sskd_transformed/{name}"] = mean_of(turned(kl), kept)
        return terms

    def _contrast_term(self, ours, theirs):
        ours, theirs = contrast(ours), contrast(theirs)
        truth = parents(ops.shape(theirs)[0])
        kept = best_ranked(theirs, truth, self.contrast_fraction)
        kl = softened_kl(theirs, ours, self.contrast_temperature)
        return mean_of(kl, kept)
