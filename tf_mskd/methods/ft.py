"""FT: the student translates its deepest map into the factors of the teacher's."""

import keras
from keras import ops

from tf_mskd.methods import Method, losses, naming, ranges, register

WEIGHTS = {"paper": 500.0, "benchmark": 200.0}


@register("ft")
class FT(Method):
    """Factor transfer from a teacher with a paraphraser.

    L = sum_k CE(y, z_k) + 500 * mean_{b,i} |f_s - f_t|, f = nrm(flatten(factor)),
    one unit vector per example; f_t of the teacher's `factor` [B, H, W, C'], f_s of
    T(F), F the student's deepest feature map [B, H, W, C]. The translator T is three
    3x3 convolutions C -> C -> C' -> C' with biases and leaky ReLU 0.1. The larger of
    the two factors is pooled to the smaller one.

    The benchmark form has batch norm in front of each leaky ReLU of T, compares
    f = nrm(flatten(mean_c factor^2)), the factors' attention maps, and weighs 200. The
    batch norm uses the statistics of the batch; on several replicas, of its local part.

    The teacher's paraphraser is trained first: see method `paraphraser`.

    Args:
        form: "paper" or "benchmark".

    Raises:
        UserError: for another form, or a teacher without paraphraser.

    Source: Kim, Park, Kwak, "Paraphrasing Complex Network: Network Compression via
        Factor Transfer", NeurIPS 2018, arXiv 1802.04977, equation 3, mean and weight
        after its released code; the benchmark form after the CRD benchmark (Tian,
        Krishnan, Isola, ICLR 2020, arXiv 1910.10699).
    Departs from the source: the initial kernels are Keras' (Glorot uniform).

    Example:
        >>> FT(form="benchmark").default_weights
        {'ce': 1.0, 'ft': 200.0}
    """

    def __init__(self, form="paper", **kwargs):
        super().__init__(**kwargs)
        ranges.check_choice(WEIGHTS, form=form)
        self.form = form
        self.default_weights = {"ce": 1.0, "ft": WEIGHTS[form]}

    def output_pairs(self, student, teacher):
        """Pairs the student's deepest map with the teacher's factor."""
        remedy = "train the teacher's paraphraser first, with method 'paraphraser'"
        factors = self.require(teacher, "factor", "teacher", remedy)
        return {naming.deepest(student, "feature", "student"): (factors[-1],)}

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Makes the translator."""
        super().build(student_shape, teacher_shape, targets_shape)
        ((name, (teacher_name,)),) = self.pairs.items()
        shape, narrow = student_shape[name], teacher_shape[teacher_name][-1]
        self.translator = []
        for index, width in enumerate((shape[-1], narrow, narrow), start=1):
            tag, dtype = f"translator_{index}", self.dtype_policy
            conv = keras.layers.Conv2D(width, 3, padding="same", name=tag, dtype=dtype)
            layers = [conv]
            if self.form == "benchmark":
                norm = keras.layers.BatchNormalization(
                    momentum=0.9, epsilon=1e-5, name=f"{tag}_norm", dtype=dtype
                )
                layers.append(norm)
            layers.append(keras.layers.LeakyReLU(0.1, name=f"{tag}_relu", dtype=dtype))
            for layer in layers:
                layer.build(shape)
                shape = layer.compute_output_shape(shape)
            self.translator += layers

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "ft/feature_K": float32 [B]}."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            student_x, teacher_x = losses.pool_to_smaller(
                self._translate(student_x), ops.stop_gradient(teacher_x)
            )
            gap = self._direction(student_x) - self._direction(teacher_x)
            terms[f"ft/{name}"] = ops.mean(ops.abs(gap), axis=-1)
        return terms

    def _translate(self, x):
        for layer in self.translator:
            x = layer(x, training=True)
        return x

    def _direction(self, factor):
        if self.form == "benchmark":
            return losses.attention(factor)
        size = factor.shape[1] * factor.shape[2] * factor.shape[3]
        return losses.normalize(ops.reshape(factor, (-1, size)))
