"""Paraphraser: a trained teacher learns the factors that FT hands to the student."""

from keras import ops

from tf_mskd.methods import Method, naming, ranges, register

LOSSES = {"mse": ops.square, "l1": ops.abs}


@register("paraphraser")
class Paraphraser(Method):
    """The stage before FT: an autoencoder behind a trained teacher, without labels.

    L = mean_{b,h,w,c} (R - F)^2, or of |R - F|,
    F the deepest feature map of the network in training [B, H, W, C], R its
    `reconstruction` [B, H, W, C] from `factor` [B, H, W, C / 2]. No gradient flows
    into F.

    The run starts from the trained teacher (`--init_flagfile`) and fixes it
    (`--freeze=backbone`), so what it saves is that teacher with a paraphraser: the
    teacher of an FT run.

    Args:
        loss: "mse" as in the CRD benchmark (30 epochs), or "l1" as in the released code
            (5 epochs).

    Raises:
        UserError: for another loss, or a network without paraphraser.

    Source: Kim, Park, Kwak, "Paraphrasing Complex Network: Network Compression via
        Factor Transfer", NeurIPS 2018, arXiv 1802.04977, equation 1.
    Departs from the source: a mean over all elements instead of a sum.

    Example:
        >>> Paraphraser().aux_heads
        ('paraphraser',)
    """

    default_weights = {"paraphraser": 1.0}
    target_keys = ()
    needs_teacher = False
    aux_heads = ("paraphraser",)

    def __init__(self, loss="mse", **kwargs):
        super().__init__(**kwargs)
        ranges.check_choice(LOSSES, loss=loss)
        self.loss = loss

    def output_pairs(self, student, teacher):
        """Reads the deepest map and its reconstruction."""
        remedy = "build it with aux_heads='paraphraser'"
        self.require(student, "reconstruction", "network it trains", remedy)
        kinds = ("feature", "reconstruction")
        return {naming.deepest(student, kind, "student"): () for kind in kinds}

    def call(self, student, teacher, targets):
        """Returns {"paraphraser/reconstruction_K": float32 [B]}."""
        feature, name = self.pairs
        if name not in student:  # a phase that does not reach it
            return {}
        gap = student[name] - ops.stop_gradient(student[feature])
        return {f"paraphraser/{name}": ops.mean(LOSSES[self.loss](gap), axis=(1, 2, 3))}
