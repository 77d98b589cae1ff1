"""FCKD: what the teacher is sure of, strengthened in space and over channels."""

import math

from keras import ops

from tf_mskd.methods import Method, naming, ranges, register
from tf_mskd.methods.cwd import channel_kl
from tf_mskd.tasks.softmax import softened_kl

SHARPNESS = 0.5  # temperature of the attentions


@register("fckd")
class FCKD(Method):
    """Foreground condensation: knowledge at pixels that the teacher is sure of.

    L = sum_k CE(y, z_k) + 10 * L_spatial + 3 * L_channel for the paired exits s, t
    [B, h, w, C], with p = softmax(t), all of the teacher under a stopped gradient:
        E = -sum_c p ln p / ln C, in [0, 1]; M = 1 where E <= its mean over the image;
        t' = M t, s' = M s;
        A_sp = h w softmax_hw(mean_c |t'| / 0.5),
        A_ch = C softmax_c(mean_hw |t'| / 0.5);
        t_sp = t' (1 + A_sp) / 2, t_ch = t' (1 + A_ch) / 2;
        L_spatial[b] = sum_hw M KL(softmax t_sp || softmax s') / sum_hw M,
        L_channel = CWD_4(t_ch, s') of method "cwd".
    Masked positions stay in the channels' softmax, as logits 0 of both.

    Args:
        condense: "hard", as above, or "soft", M = 1 - E.

    Source: "FCKDNet: A Feature Condensation Knowledge Distillation Network for Semantic
        Segmentation", Entropy 2023, 25(1):125.
    Reconstruction: the abstract names the entropy matrix, the condensation of both
        outputs, the soft enhancement of the teacher in space and over channels, and
        that pixels and channels are distilled. All forms, the threshold and the weights
        are inferred.

    Example:
        >>> FCKD().default_weights
        {'ce': 1.0, 'fckd_spatial': 10.0, 'fckd_channel': 3.0}
    """

    tasks = ("segmentation",)
    default_weights = {"ce": 1.0, "fckd_spatial": 10.0, "fckd_channel": 3.0}

    def __init__(self, condense: str = "hard", **kwargs):
        super().__init__(**kwargs)
        ranges.check_choice(("hard", "soft"), condense=condense)
        self.condense = condense

    def output_pairs(self, student, teacher):
        """Pairs the exits from the deep end."""
        return naming.from_deep_end(student, teacher, "exit")

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "fckd_spatial/exit_k", "fckd_channel/exit_k": [B]}."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            t = ops.cast(ops.stop_gradient(teacher_x), "float32")
            mask = condensation(t, self.condense)[..., None]
            condensed, s = mask * t, mask * ops.cast(student_x, "float32")
            spatial, channel = attentions(condensed)
            kl = softened_kl(condensed * (1 + spatial) / 2, s, 1.0)
            kept = ops.sum(mask[..., 0], axis=(1, 2))
            spatial_term = ops.sum(mask[..., 0] * kl, axis=(1, 2)) / kept
            terms[f"fckd_spatial/{name}"] = spatial_term
            goal = condensed * (1 + channel) / 2
            terms[f"fckd_channel/{name}"] = channel_kl(goal, s, 4.0)
        return terms


def entropy(logits):
    """Entropy of each pixel's distribution over ln C, in [0, 1], float32 [B, h, w]."""
    log_p = ops.log_softmax(logits, axis=-1)
    return -ops.sum(ops.exp(log_p) * log_p, axis=-1) / math.log(logits.shape[-1])


def condensation(logits, kind):
    """The mask M of `FCKD`, float32 [B, h, w]; never 0 everywhere."""
    e = entropy(logits)
    if kind == "soft":
        return ops.maximum(1 - e, 1e-6)
    # an image of one entropy everywhere keeps all its pixels
    limit = ops.mean(e, axis=(1, 2), keepdims=True) + 1e-6
    return ops.cast(e <= limit, "float32")


def attentions(x):
    """Attention over positions [B, h, w, 1] and channels [B, 1, 1, C], of mean 1."""
    size = ops.abs(x)
    h, w, c = x.shape[1:]
    over_positions = ops.reshape(ops.mean(size, axis=-1), (-1, h * w)) / SHARPNESS
    spatial = h * w * ops.softmax(over_positions, axis=-1)
    channel = c * ops.softmax(ops.mean(size, axis=(1, 2)) / SHARPNESS, axis=-1)
    return ops.reshape(spatial, (-1, h, w, 1)), channel[:, None, None, :]
