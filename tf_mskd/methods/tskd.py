"""TSKD: a teacher and the student's own deepest exit teach its exits."""

import keras
from keras import ops

from tf_mskd.methods import losses, naming, ranges, register
from tf_mskd.methods.common.self_taught import SelfTaught
from tf_mskd.tasks import softmax

SUPERVISED = {"all": slice(None), "last": slice(-1, None)}
FEATURES = ("embedding", "feature")


@register("tskd")
class TSKD(SelfTaught):
    """Teacher-student knowledge distillation: two teachers for a multi-exit student.

    L = sum_k [CE(y, z_k) + KD_T(t, z_k)]
        + sum_{k<K} [KD_T(sg z_K, z_k) + 0.03 * mean (A_k(f_k) - sg f_K)^2],
    z_k logits of student exit k [B, classes], t the teacher's last logits, f_k the
    vector of exit k [B, D_k] or the map of stage k, KD_T of `softmax.softened_kl`,
    T = 3; means over the batch and all entries of f. A_k, linear or a 1x1 convolution
    to the width of f_K, learns with the student; of two maps the larger is pooled
    first.

    The terms are "ce", "kd" (teacher), "tskd" (own deepest exit), "tskd_feature". A
    phase of progressive training without the deepest exit has the first two. For the
    ensemble of exit probabilities set ensemble="probabilities".

    Args:
        temperature: float > 0, T of both teachers.
        supervised: "all" or "last", the student's exits that the teacher guides.
        features: "embedding" for vectors or "feature" for feature maps.

    Raises:
        UserError: for a student of one exit, or an argument out of range.

    Source: Xu, Gao, Li, Bai, Li, Zhang, on teacher-student knowledge distillation,
        Applied Intelligence 53:1997-2009 (2023), doi 10.1007/s10489-022-03486-4.
    Reconstruction: documented are the multi-exit student, soft labels from the teacher
        and from the student's own output, supervision of deep features, the ensemble.
        Which exits the teacher guides, the form of the feature term, T and all weights
        are inferred.

    Example:
        >>> TSKD().default_weights
        {'ce': 1.0, 'kd': 1.0, 'tskd': 1.0, 'tskd_feature': 0.03}
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "kd": 1.0, "tskd": 1.0, "tskd_feature": 0.03}
    needs_teacher = True

    def __init__(
        self, temperature=3.0, supervised="all", features="embedding", **kwargs
    ):
        super().__init__(**kwargs)
        ranges.check_positive(temperature=temperature)
        ranges.check_choice(SUPERVISED, supervised=supervised)
        ranges.check_choice(FEATURES, features=features)
        self.temperature, self.supervised = temperature, supervised
        self.features = features

    def output_pairs(self, student, teacher):
        """Pairs the supervised exits with the teacher's last one; reads the rest."""
        exits = self.exits_of(student)
        teacher_exit = naming.deepest(teacher, "exit", "teacher")
        pairs = dict.fromkeys(exits, ())
        pairs.update(dict.fromkeys(exits[SUPERVISED[self.supervised]], (teacher_exit,)))
        pairs.update({self.beside(self.features, n, student): () for n in exits})
        return pairs

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Creates one adapter per exit but the deepest."""
        super().build(student_shape, teacher_shape, targets_shape)
        self.adapters = {}
        *names, last = naming.numbered(self.pairs, self.features)
        width = student_shape[last][-1]
        for name in names:
            options = {"dtype": self.dtype_policy, "name": f"adapt_{name}"}
            if self.features == "embedding":
                adapter = keras.layers.Dense(width, **options)
            else:
                adapter = keras.layers.Conv2D(width, 1, **options)
            adapter.build(student_shape[name])
            self.adapters[name] = adapter

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "kd/...", "tskd/...", "tskd_feature/...": [B]}."""
        terms = self.label_terms(student, targets)
        for name, logits, target in self.paired(student, teacher):
            terms[f"kd/{name}"] = softmax.softened_kl(target, logits, self.temperature)
        *exits, last = naming.numbered(self.pairs, "exit")
        if last not in student:
            return terms
        for name in exits:
            terms[f"tskd/{name}"] = softmax.softened_kl(
                student[last], student[name], self.temperature
            )
        goal = student[naming.numbered(self.pairs, self.features)[-1]]
        for name, adapter in self.adapters.items():
            terms[f"tskd_feature/{name}"] = _distance(adapter, student[name], goal)
        return terms


def _distance(adapter, value, goal):
    goal = ops.stop_gradient(ops.cast(goal, "float32"))
    if len(value.shape) == 4:
        value, goal = losses.pool_to_smaller(value, goal)
    square = ops.square(adapter(value) - goal)
    return ops.mean(square, axis=tuple(range(1, len(square.shape))))
