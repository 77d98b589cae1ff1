"""EED: the mean of a student's exits teaches every one of them."""

from keras import ops

from tf_mskd.methods import naming, ranges, register
from tf_mskd.methods.common.self_taught import SelfTaught, soft_cross_entropy

FORMS = {"mse": 1.0, "kl": 0.1}  # weight of the term on outputs


@register("eed")
class EED(SelfTaught):
    """Exit-ensemble distillation.

    L = sum_k CE(y, z_k) + sum_k mean_n (z_k - zbar)^2
        + sum_k mean_d (f_k - fbar)^2 * [f_k > 0 or fbar > 0],
    zbar = sg mean_k z_k, fbar = sg mean_k f_k; z_k logits of exit k [B, classes], f_k
    its vector [B, D], the deepest included; means over the batch. form="kl" has
    0.1 * T^2 * SCE_T(zbar, z_k) for the second sum, SCE of
    `self_taught.soft_cross_entropy`. Without the ensemble zbar, fbar are sg z_K, sg f_K
    and the sums of these terms go over k < K.

    A phase of progressive training takes the mean of its own exits; without the
    ensemble, one without the deepest exit learns from labels alone. Needs no teacher.

    Args:
        form: "mse" or "kl", the term on the outputs.
        ensemble: bool, whether the mean teaches, or the deepest exit.
        temperature: float > 0, of the form "kl".

    Raises:
        UserError: for a student of one exit or with vectors of several widths, or an
            argument out of range.

    Source: Lee, Lee, "Students are the Best Teacher: Exit-Ensemble Distillation with
        Multi-Exits", arXiv 2104.00299 (2021), and its released code.
    Departs from the source: nothing known; its networks and schedule (200 epochs, batch
        128, rate 0.1) are flags.

    Example:
        >>> EED(form="kl").default_weights
        {'ce': 1.0, 'eed': 0.1, 'eed_feature': 1.0}
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "eed": FORMS["mse"], "eed_feature": 1.0}

    def __init__(self, form="mse", ensemble=True, temperature=3.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_choice(FORMS, form=form)
        ranges.check_positive(temperature=temperature)
        self.form, self.ensemble, self.temperature = form, ensemble, temperature
        self.default_weights = {**self.default_weights, "eed": FORMS[form]}

    def output_pairs(self, student, teacher):
        """Reads all exits of the student and their vectors."""
        exits = self.exits_of(student)
        vectors = [self.beside("embedding", name, student) for name in exits]
        return dict.fromkeys((*exits, *vectors), ())

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Checks that the vectors can be averaged."""
        super().build(student_shape, teacher_shape, targets_shape)
        vectors = naming.numbered(self.pairs, "embedding")
        widths = {name: student_shape[name][-1] for name in vectors}
        if len(set(widths.values())) > 1:
            found = ", ".join(f"{name} {width}" for name, width in widths.items())
            self.fail(
                f"averages the vectors of all exits, their widths are {found}: build "
                "it with exit_head='dense', which ends all exits alike."
            )

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "eed/exit_k", "eed_feature/embedding_k": [B]}."""
        terms = self.label_terms(student, targets)
        for kind, compare in (("exit", self._outputs), ("embedding", _vectors)):
            names = [n for n in naming.numbered(self.pairs, kind) if n in student]
            values = {n: ops.cast(student[n], "float32") for n in names}
            if self.ensemble:
                target = sum(values.values()) / len(values)
            else:
                target = values.pop(naming.numbered(self.pairs, kind)[-1], None)
                if target is None:
                    continue
            prefix = "eed" if kind == "exit" else "eed_feature"
            for name, value in values.items():
                terms[f"{prefix}/{name}"] = compare(value, ops.stop_gradient(target))
        return terms

    def _outputs(self, value, target):
        if self.form == "mse":
            return ops.mean(ops.square(value - target), axis=-1)
        gap = soft_cross_entropy(target, value, self.temperature)
        return self.temperature**2 * gap


def _vectors(value, target):
    is_active = ops.logical_or(value > 0, target > 0)
    square = ops.square(value - target)
    return ops.mean(ops.where(is_active, square, 0.0), axis=-1)
