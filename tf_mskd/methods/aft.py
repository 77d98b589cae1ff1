"""AFT-KD: blocks of attention and features, weighted by how fast each loss falls."""

import math

import keras
from keras import ops

from tf_mskd.methods import Method, losses, naming, ranges, register
from tf_mskd.tasks import softmax


@register("aft")
class AFT(Method):
    """Attention and feature transfer: where a stage is active, and with what.

    L = w_1 * sum_k CE(y, z_k) + w_2 * KD_T(t, z) + w_3 * sum_l ||A(F_s) - A(F_t)||^2,
    A(F) = [nrm(flatten mean_c P^2), nrm(flatten P)], two unit vectors per example,
    P = F averaged over blocks to a grid both maps share; F the maps of stage l
    [B, H, W, C], z and t the last logits of student and teacher, no gradient into the
    teacher's. The grid is the larger map's size divided by `block`, or the smaller
    map's size if that is less. Stages are paired from the deep end. Where channels
    differ, a 1x1 convolution and batch norm bring the student's map to the teacher's;
    on several replicas the batch norm uses the statistics of the local part.

    w_i = 3 * softmax_i(r_i / tau), r_i the quotient of the term's means in the last two
    finished epochs: what falls slowly counts more. w_i = 1 in the first two epochs.

    Args:
        temperature: float > 0, T.
        block: int >= 1, side of the blocks at the larger map.
        tau: float > 0, evens the weights out; at large values all are 1.

    Raises:
        UserError: for an argument out of range.

    Source: Yang, Yu, Sheng, Yang, Scientific Reports 13:18369 (2023), doi
        10.1038/s41598-023-43986-y. Weights: Liu, Johns, Davison, CVPR 2019, arXiv
        1803.10704.
    Reconstruction: the paper's abstract gives blocks of attention and features, their
        alignment by operations on blocks, and weights that adapt to the rates of the
        losses. The form of the blocks, the adapter, T = 4 and the dynamic weight
        average with tau = 2 are choices made here.

    Example:
        >>> history = [{"ce/exit_1": 1.0, "kd/exit_1": 1.0}]
        >>> history += [{"ce/exit_1": 0.5, "kd/exit_1": 1.0}]
        >>> {t: round(w, 3) for t, w in AFT().schedule(2, 9, history).items()}
        {'ce': 0.876, 'kd': 1.124}
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "kd": 1.0, "aft": 1.0}

    def __init__(self, temperature=4.0, block=2, tau=2.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_positive(temperature=temperature, tau=tau)
        ranges.check_at_least(1, block=block)
        self.temperature, self.block, self.tau = temperature, block, tau

    def output_pairs(self, student, teacher):
        """Pairs the feature maps from the deep end, and the last exits."""
        teacher_exit = naming.deepest(teacher, "exit", "teacher")
        last = {naming.deepest(student, "exit", "student"): (teacher_exit,)}
        return {**naming.from_deep_end(student, teacher, "feature"), **last}

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Makes an adapter for each stage whose channels differ."""
        super().build(student_shape, teacher_shape, targets_shape)
        self.adapters = {}
        for name, (teacher_name,) in self.pairs.items():
            width = teacher_shape[teacher_name][-1]
            if naming.is_kind(name, "exit") or student_shape[name][-1] == width:
                continue
            conv = keras.layers.Conv2D(
                width, 1, use_bias=False, name="conv", dtype=self.dtype_policy
            )
            norm = keras.layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, name="norm", dtype=self.dtype_policy
            )
            adapter = keras.Sequential([conv, norm], name=f"adapt_{name}")
            adapter.build(student_shape[name])
            self.adapters[name] = adapter

    def schedule(self, epoch, epochs, history):
        """Weights by the quotients of the last two epochs' losses."""
        if len(history) < 2:
            return {}
        before, last = history[-2:]
        rates = {}
        for term in self.default_weights:
            names = [n for n in last if n.startswith(f"{term}/") and n in before]
            if names:
                now, then = (sum(logs[n] for n in names) for logs in (last, before))
                rates[term] = max(now, 1e-8) / max(then, 1e-8)
        top = max(rates.values(), default=0.0)  # keeps the exponentials finite
        raised = {t: math.exp((rate - top) / self.tau) for t, rate in rates.items()}
        total = sum(raised.values())
        return {term: len(raised) * value / total for term, value in raised.items()}

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "kd/exit_K", "aft/feature_l": float32 [B]}."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            teacher_x = ops.stop_gradient(teacher_x)
            if naming.is_kind(name, "exit"):
                kl = softmax.softened_kl(teacher_x, student_x, self.temperature)
                terms[f"kd/{name}"] = kl
                continue
            if name in self.adapters:
                student_x = self.adapters[name](student_x, training=True)
            size = [
                max(1, min(m, n, max(m, n) // self.block))
                for m, n in zip(student_x.shape[1:3], teacher_x.shape[1:3], strict=True)
            ]
            target = attention_feature(teacher_x, size)
            gap = attention_feature(student_x, size) - target
            terms[f"aft/{name}"] = ops.sum(ops.square(gap), axis=-1)
        return terms


def attention_feature(x, size):
    """The block of attention and features of a map.

    Args:
        x: float [B, H, W, C].
        size: (int, int), h and w of the grid that it is averaged to.

    Returns:
        float32 [B, h * w * (1 + C)], two unit vectors one behind the other.
    """
    x = losses.average_pool(ops.cast(x, "float32"), size)
    flat = ops.reshape(x, (-1, math.prod(x.shape[1:])))
    return ops.concatenate([losses.attention(x), losses.normalize(flat)], axis=-1)
