"""DBT: the last exit teaches all others at a temperature that rises."""

from keras import ops

from tf_mskd.methods import naming, ranges, register
from tf_mskd.methods.common.self_taught import SelfTaught, soft_cross_entropy
from tf_mskd.utils.replicas import all_reduce_sum

CONFIDENCE, GROWTH = 0.5, 1.05


@register("dbt")
class DBT(SelfTaught):
    """Distillation-based training for multi-exit architectures.

    L = s * { sum_{k<=K} 0.5 * CE(y, z_k) + sum_{k<K} 0.5 * T^2 * SCE_T(sg z_K, z_k) },
    z_k logits of exit k [B, classes], SCE of `self_taught.soft_cross_entropy`, mean
    over the batch. As SCE holds the entropy of the target, "dbt" rises with T.

    T is a variable of the method, kept in checkpoints: it starts at 1, and after every
    step in which mean_b max_n softmax(z_K / T) > 0.5 it grows by the factor 1.05. The
    mean goes over the batches of all replicas. A phase of progressive training without
    the last exit learns from labels alone and keeps T. Needs no teacher.

    Args:
        temperature: float > 0 to keep T there (the paper's constant variant has 4), or
            None for the rising one.
        scale: float > 0, s; the released code takes 10 / K.

    Raises:
        UserError: for a student of one exit, or an argument out of range.

    Source: Phuong, Lampert, "Distillation-Based Training for Multi-Exit Architectures",
        ICCV 2019, pp. 1355-1364, and its released code.
    Departs from the source: s = 1; the constant 0.5 is the pair of term weights; no
        unlabelled images. Its run (MSDNet, batch 64, Nesterov, L2 1e-4) is flags.

    Example:
        >>> DBT(temperature=4.0, scale=2.5).default_weights
        {'ce': 1.25, 'dbt': 1.25}
    """

    tasks = ("classification",)

    default_weights = {"ce": 0.5, "dbt": 0.5}

    def __init__(self, temperature=None, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_positive(scale=scale)
        if temperature is not None:
            ranges.check_positive(temperature=temperature)
        self.temperature, self.scale = temperature, scale
        self.default_weights = {"ce": 0.5 * scale, "dbt": 0.5 * scale}

    def output_pairs(self, student, teacher):
        """Reads all exits of the student."""
        return dict.fromkeys(self.exits_of(student), ())

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Creates the temperature."""
        super().build(student_shape, teacher_shape, targets_shape)
        self.current = None
        if self.temperature is None:
            self.current = self.add_weight(
                shape=(),
                initializer="ones",
                trainable=False,
                aggregation="only_first_replica",  # all replicas come to the same one
                name="temperature",
            )

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "dbt/exit_k": float32 [B]}; may raise T."""
        terms = self.label_terms(student, targets)
        *exits, last = naming.numbered(self.pairs, "exit")
        if last not in student:
            return terms
        temperature = self.temperature
        if self.current is not None:
            temperature = 1.0 * self.current  # a tensor: the value before the rise
            self._anneal(student[last], temperature)
        for name in exits:
            gap = soft_cross_entropy(student[last], student[name], temperature)
            terms[f"dbt/{name}"] = temperature**2 * gap
        return terms

    def _anneal(self, logits, temperature):
        logits = ops.stop_gradient(ops.cast(logits, "float32"))
        highest = ops.max(ops.softmax(logits / temperature, axis=-1), axis=-1)
        rows = all_reduce_sum(ops.cast(ops.shape(highest)[0], "float32"))
        mean = all_reduce_sum(ops.sum(highest)) / rows
        grown = GROWTH * temperature
        self.current.assign(ops.where(mean > CONFIDENCE, grown, temperature))
