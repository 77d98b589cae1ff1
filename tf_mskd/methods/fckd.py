"""FCKD: what the teacher is sure of, strengthened in space and over channels."""

import math

from keras import ops

from tf_mskd.methods import Method, naming, ranges, register
from tf_mskd.tasks.planes import (
    CLASSES,
    POSITIONS,
    log_softmax,
    planes,
    planes_kl,
)

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
            t = planes(ops.stop_gradient(teacher_x))
            mask = condensation(t, self.condense)
            condensed, s = (mask[:, None] * x for x in (t, planes(student_x)))
            spatial, channel = attentions(condensed)
            kl = planes_kl(condensed * (1 + spatial) / 2, s, 1.0, CLASSES)
            spatial_term = ops.sum(mask * kl, axis=-1) / ops.sum(mask, axis=-1)
            terms[f"fckd_spatial/{name}"] = spatial_term
            kl = planes_kl(condensed * (1 + channel) / 2, s, 4.0, POSITIONS)
            terms[f"fckd_channel/{name}"] = ops.mean(kl, axis=-1)
        return terms


def entropy(logits):
    """Entropy of each position of `planes` over ln C, in [0, 1], float32 [B, n]."""
    log_p = log_softmax(logits, CLASSES)
    return -ops.sum(ops.exp(log_p) * log_p, axis=CLASSES) / math.log(logits.shape[1])


def condensation(logits, kind):
    """The mask M of `FCKD` for `planes`, float32 [B, n]; never 0 everywhere."""
    e = entropy(logits)
    if kind == "soft":
        return ops.maximum(1 - e, 1e-6)
    # an image of one entropy everywhere keeps all its pixels
    limit = ops.mean(e, axis=-1, keepdims=True) + 1e-6
    return ops.cast(e <= limit, "float32")


def attentions(x):
    """Attention over positions [B, 1, n] and channels [B, C, 1] of `planes`, mean 1."""
    size = ops.abs(x)
    over_positions = ops.mean(size, axis=CLASSES, keepdims=True) / SHARPNESS
    over_channels = ops.mean(size, axis=POSITIONS, keepdims=True) / SHARPNESS
    spatial = x.shape[POSITIONS] * ops.exp(log_softmax(over_positions, POSITIONS))
    return spatial, x.shape[CLASSES] * ops.exp(log_softmax(over_channels, CLASSES))
