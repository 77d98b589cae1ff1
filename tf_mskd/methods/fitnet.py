"""FitNet: an intermediate map of the student predicts the teacher's."""

from keras import ops

from tf_mskd.methods import Method, naming, ranges, register
from tf_mskd.methods.common.regressor import Regressor


@register("fitnet")
class FitNet(Method):
    """Hints: a regressor on a student's feature map aims at the teacher's.

    L = sum_k CE(y, z_k) + 100 * mean_{b,h,w,c} (R(F_s) - F_t)^2, F the map of stage
    `tap` [B, H, W, C], R the convolution, batch norm and ReLU of `Regressor`, which
    learns with the student. On several replicas its batch norm has the statistics of
    the local part.

    The paper's two stages are two runs: this method with the weight 0 for "ce" and no
    L2, which would shrink the layers behind the tap, then method "kd", with its weight
    decaying, from the network of the first run.

    Args:
        tap: int >= 1, number of the stage in both networks.

    Raises:
        UserError: for a tap below 1 or one that a network lacks, or maps that no
            regressor joins.

    Source: Romero, Ballas, Kahou, Chassang, Gatta, Bengio, ICLR 2015, arXiv 1412.6550,
        in the form and with the weight of the CRD benchmark.
    Departs from the source: of the benchmark's VGGs tap 2 is the third block, here the
        second. The paper's 1/2 and sum over channels are in the weight.

    Example:
        >>> FitNet(tap=1).output_pairs(["exit_3", "feature_1"], ["feature_1"])
        {'feature_1': ('feature_1',)}
    """

    default_weights = {"ce": 1.0, "fitnet": 100.0}

    def __init__(self, tap=2, **kwargs):
        super().__init__(**kwargs)
        ranges.check_at_least(1, tap=tap)
        self.tap = tap

    def output_pairs(self, student, teacher):
        """Pairs the tap of both networks."""
        name = f"feature_{self.tap}"
        for role, names in (("student", student), ("teacher", teacher)):
            if name not in names:
                known = ", ".join(naming.numbered(names, "feature"))
                known = known or "no feature maps"
                self.fail(
                    f"reads {name} of the {role}, which has {known}: choose "
                    "another tap."
                )
        return {name: (name,)}

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Makes the regressor."""
        super().build(student_shape, teacher_shape, targets_shape)
        self.regressors = {
            name: Regressor(
                student_shape[name],
                teacher_shape[teacher_name],
                name=f"regress_{name}",
                dtype=self.dtype_policy,
            )
            for name, (teacher_name,) in self.pairs.items()
        }

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "fitnet/feature_l": float32 [B]}."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            guess = self.regressors[name](student_x, training=True)
            gap = guess - ops.stop_gradient(teacher_x)
            terms[f"fitnet/{name}"] = ops.mean(ops.square(gap), axis=(1, 2, 3))
        return terms
