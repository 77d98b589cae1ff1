"""BYOT: a student's deepest exit teaches its shallower ones."""

import keras
from keras import ops

from tf_mskd.methods import naming, ranges, register
from tf_mskd.methods.common.self_taught import SelfTaught, soft_cross_entropy

# exits without the feature term, among the taught ones, shallow to deep
SKIPS = {"before_last": slice(-1), "first": slice(1, None), "none": slice(None)}


@register("byot")
class BYOT(SelfTaught):
    """Be your own teacher, in the form of the journal version.

    L = CE(y, z_K) + sum_{k<K} [0.7 * CE(y, z_k) + 0.3 * SCE_3(sg z_K, z_k)]
        + 0.03 * sum_k || f_k W_k + c_k - sg f_K ||_F,
    z_k logits of exit k [B, classes], f_k its vector [B, D_k], SCE of
    `self_taught.soft_cross_entropy`, means over the batch. The Frobenius norm is not
    squared and goes over the whole matrix [B, D_K]: it grows with the root of B. W_k
    [D_k, D_K] and c_k learn with the student.

    "byot/exit_k" is SCE; "byot/exit_K" is CE(y, z_K), so that "ce" and "byot" weigh 0.7
    and 0.3 at every exit and the deepest one learns from labels with weight 1.
    "byot_feature" compares no examples but takes one root over all of the local batch;
    on several replicas each sees its own part. A phase of progressive training without
    the deepest exit learns from labels alone. Needs no teacher.

    Args:
        temperature: float > 0, of SCE.
        skip: which taught exit has no feature term: "before_last" (exit K-1), as the
            released code runs; "first", as its comment says; or "none".

    Raises:
        UserError: for a student of one exit, or an argument out of range.

    Source: Zhang, Bao, Ma, "Self-Distillation: Towards Efficient and Compact Neural
        Networks", IEEE TPAMI 44(8), 2022, released code; first as Zhang, Song, Gao,
        Chen, Bao, Ma, "Be Your Own Teacher", ICCV 2019, arXiv 1905.08094, with other
        losses.
    Departs from the source: Keras' initial values for W_k, c_k; its networks and
        schedule (250 epochs, batch 128, rate 0.1, AutoAugment, cutout) are flags.

    Example:
        >>> BYOT(skip="first").default_weights
        {'ce': 0.7, 'byot': 0.3, 'byot_feature': 0.03}
    """

    tasks = ("classification",)
    label_use = "soft"
    default_weights = {"ce": 0.7, "byot": 0.3, "byot_feature": 0.03}

    def __init__(self, temperature=3.0, skip="before_last", **kwargs):
        super().__init__(**kwargs)
        ranges.check_positive(temperature=temperature)
        ranges.check_choice(SKIPS, skip=skip)
        self.temperature, self.skip = temperature, skip

    def output_pairs(self, student, teacher):
        """Reads all exits, and the vectors of those with a feature term and the last.

        The pairs are the same when called with these vectors alone.
        """
        exits = self.exits_of(student)
        compared = exits[:-1][SKIPS[self.skip]]
        compared += exits[-1:] if compared else []
        vectors = [self.beside("embedding", name, student) for name in compared]
        return dict.fromkeys((*exits, *vectors), ())

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Creates one linear map per vector that follows the deepest one."""
        super().build(student_shape, teacher_shape, targets_shape)
        self.adapters = {}
        vectors = naming.numbered(self.pairs, "embedding")
        for name in vectors[:-1]:
            self.adapters[name] = keras.layers.Dense(
                student_shape[vectors[-1]][-1],
                dtype=self.dtype_policy,
                name=f"adapt_{name}",
            )
            self.adapters[name].build(student_shape[name])

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "byot/exit_k": [B], "byot_feature/embedding_k": []}."""
        terms = self.label_terms(student, targets)
        *exits, last = naming.numbered(self.pairs, "exit")
        if last not in student:
            return terms
        for name in exits:
            terms[f"byot/{name}"] = soft_cross_entropy(
                student[last], student[name], self.temperature
            )
        terms[f"byot/{last}"] = self.label_loss(targets["label"], student[last])
        for name, adapter in self.adapters.items():
            goal = ops.cast(student[f"embedding_{naming.number(last)}"], "float32")
            gap = adapter(student[name]) - ops.stop_gradient(goal)
            # the floor keeps the root's gradient finite where both vectors agree
            norm = ops.sqrt(ops.maximum(ops.sum(ops.square(gap)), 1e-12))
            terms[f"byot_feature/{name}"] = norm
        return terms
