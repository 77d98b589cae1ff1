"""VID: the student's maps are as informative as they can be about the teacher's."""

import math

import keras
from keras import ops

from tf_mskd.methods import Method, losses, naming, ranges, register

MIN_VARIANCE = 1e-5


@register("vid")
class VID(Method):
    """Variational information distillation: the teacher's maps under a Gaussian.

    L = sum_k CE(y, z_k) + sum_l mean_{b,h,w,c} [(mu - F_t)^2 / var_c + ln var_c] / 2,
    mu = M(F_s), M three 1x1 convolutions to the teacher's channels, without biases, the
    first two with ReLU; var_c = softplus(rho_c) + 1e-5, one learnt rho per channel of
    the teacher; F^l the map of stage l [B, H, W, C], the larger of the two pooled to
    the smaller one first. Stages are paired from the deep end. The term can be
    negative: its minimum over var is (1 + ln of the mean square error) / 2, and never
    below ln(1e-5) / 2.

    Args:
        initial_variance: float > 1e-5, var of every channel at the start.

    Raises:
        UserError: if `initial_variance` is not above 1e-5.

    Source: Ahn, Hu, Damianou, Lawrence, Dai, CVPR 2019, arXiv 1904.05835, equation 6,
        in the form and with the weight of the CRD benchmark (from the authors' code).
    Departs from the source: its VGGs have one tap more.

    Example:
        >>> VID().default_weights
        {'ce': 1.0, 'vid': 1.0}
    """

    default_weights = {"ce": 1.0, "vid": 1.0}

    def __init__(self, initial_variance=5.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_above(MIN_VARIANCE, initial_variance=initial_variance)
        self.initial_variance = initial_variance

    def output_pairs(self, student, teacher):
        """Pairs the feature maps from the deep end."""
        return naming.from_deep_end(student, teacher, "feature")

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Makes three convolutions and the variances for every pair."""
        super().build(student_shape, teacher_shape, targets_shape)
        self.means, self.rho = {}, {}
        start = math.log(math.expm1(self.initial_variance - MIN_VARIANCE))
        for name, (teacher_name,) in self.pairs.items():
            width = teacher_shape[teacher_name][-1]
            self.means[name] = self._convolutions(name, student_shape[name], width)
            self.rho[name] = self.add_weight(
                shape=(width,),
                initializer=keras.initializers.Constant(start),
                name=f"rho_{name}",
            )

    def _convolutions(self, name, shape, width):
        layers = []
        for index, activation in enumerate(("relu", "relu", None), start=1):
            layer = keras.layers.Conv2D(
                width,
                1,
                activation=activation,
                use_bias=False,
                kernel_initializer=keras.initializers.VarianceScaling(
                    1 / 3, "fan_in", "uniform"
                ),
                name=f"mean_{name}_{index}",
                dtype=self.dtype_policy,
            )
            layer.build(shape)
            shape = (*shape[:-1], width)
            layers.append(layer)
        return layers

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "vid/feature_l": float32 [B]}."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            mean, target = losses.pool_to_smaller(student_x, teacher_x)
            for layer in self.means[name]:
                mean = layer(mean)
            variance = ops.softplus(self.rho[name]) + MIN_VARIANCE
            gap = ops.square(mean - ops.stop_gradient(target))
            gap = ops.mean(gap, axis=(1, 2))  # [B, C]: what follows is small
            surprise = 0.5 * (gap / variance + ops.log(variance))
            terms[f"vid/{name}"] = ops.mean(surprise, axis=-1)
        return terms
