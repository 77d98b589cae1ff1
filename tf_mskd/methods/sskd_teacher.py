"""SSKD's stage before distillation: the teacher's projection head."""

from keras import ops

from tf_mskd.methods import register
from tf_mskd.methods.common.contrast import contrast, parents
from tf_mskd.methods.common.rotations import RotatedCrops
from tf_mskd.tasks import softmax


@register("sskd_teacher")
class SSKDTeacher(RotatedCrops):
    """Trains a projection head to recognise an image in its rotated views.

    L = mean_i -ln softmax(C)[i, parent(i)], over the 3 B rotated views of B images;
    C[i, j] = cos(h(a_i), h(n_j)), without temperature; a_i rotated view i, n_j the
    unrotated view of image j, h the `projection_K` of the network.

    It trains the network it is given: start from a trained teacher and freeze all but
    the head (`--init_flagfile` with `--freeze=backbone`). The term compares
    the examples of the local batch with each other; on several replicas each sees its
    own part. Its views have a crop of their own: run it with `--augment=flip`.

    Args:
        crop_padding: see `rotations.RotatedCrops`.

    Raises:
        UserError: if the network has no projection head or the running phase does not
            compute it, for images that are not square and for a batch of one.

    Source: Xu, Liu, Li, Loy, "Knowledge Distillation Meets Self-Supervision", ECCV
        2020, arXiv 2006.07114, in the form of the released code.
    Departs from the source: nothing known.

    Example:
        >>> SSKDTeacher().output_pairs(["exit_4", "projection_4"], [])
        {'projection_4': ()}
    """

    tasks = ("classification",)

    default_weights = {"sskd_teacher": 1.0}
    aux_heads = ("projection",)
    needs_teacher = False

    def output_pairs(self, student, teacher):
        """Reads the projection head."""
        remedy = "build it with create_model(aux_heads='projection')"
        heads = self.require(student, "projection", "network", remedy)
        return {heads[-1]: ()}

    def call(self, student, teacher, targets):
        """Returns {"sskd_teacher/projection_K": float32 scalar}."""
        (name,) = self.pairs
        if name not in student:
            self.fail("needs the whole network in every phase: take phases='joint'.")
        scores = contrast(student[name])
        truth = parents(ops.shape(scores)[0])
        loss = softmax.cross_entropy(truth, scores)
        return {f"sskd_teacher/{name}": ops.mean(loss)}
