"""AB: the student's neurons are on where the teacher's are, before it learns labels."""

from keras import ops

from tf_mskd.methods import Method, naming, ranges, register
from tf_mskd.methods.common.regressor import Regressor

SCALE = 3 / 1000  # of the released code for CIFAR, where l below is a sum


@register("ab")
class AB(Method):
    """Transfer of activation boundaries: the first of two stages, without labels.

    L = sum_i w_i * 3/1000 * mean_b l_i[b],
    l = sum_{h,w,c} (s + m)^2 * [s > -m and t <= 0] + (s - m)^2 * [s <= m and t > 0],
    s = R_i(F_s^i), t = F_t^i maps before their last ReLU, [B, H, W, C]; R the identity
    for maps of one shape, otherwise a convolution and batch norm (`Regressor`, without
    its ReLU). Stages are paired from the deep end; w_i is 1 at the deepest pair and
    halves with each pair before it. Only the sign of t matters.

    This is how a student is initialised: no term reaches its exits, which keep their
    initial weights. What follows is an ordinary run that starts from its result
    (`--init_flagfile`), such as `--method=ce`; the connectors R are dropped.

    Args:
        margin: float > 0, the distance m from zero that counts as safely on or off.

    Raises:
        UserError: if the margin is not positive, or a network has no maps before ReLUs.

    Source: Heo, Lee, Yun, Choi, "Knowledge Transfer via Distillation of Activation
        Boundaries Formed by Hidden Neurons", AAAI 2019, arXiv 1811.03233, with the
        factor of its released code.
    Departs from the source: connectors have the CRD benchmark's shape, so that maps of
        unequal size can be paired; networks here may have more stages.

    Example:
        >>> AB().output_pairs(["preact_1", "preact_2"], ["preact_1", "preact_2"])
        {'preact_1': ('preact_1',), 'preact_2': ('preact_2',)}
    """

    default_weights = {"ab": 1.0}
    target_keys = ()

    def __init__(self, margin=1.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_positive(margin=margin)
        self.margin = margin

    def output_pairs(self, student, teacher):
        """Pairs the maps before ReLUs from the deep end."""
        return naming.from_deep_end(student, teacher, "preact")

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Makes a connector for each pair of unequal shapes."""
        super().build(student_shape, teacher_shape, targets_shape)
        self.connect = {}
        for name, (teacher_name,) in self.pairs.items():
            shapes = student_shape[name], teacher_shape[teacher_name]
            if shapes[0][1:] != shapes[1][1:]:
                self.connect[name] = Regressor(
                    *shapes,
                    relu=False,
                    name=f"connect_{name}",
                    dtype=self.dtype_policy,
                )

    def call(self, student, teacher, targets):
        """Returns {"ab/preact_k": float32 [B]}, with the weight w_i of its pair."""
        terms, weight = {}, SCALE
        for name, (teacher_name,) in reversed(self.pairs.items()):  # deep to shallow
            if name in student:
                student_x = student[name]
                if name in self.connect:
                    student_x = self.connect[name](student_x, training=True)
                gap = boundary(student_x, teacher[teacher_name], self.margin)
                terms[f"ab/{name}"] = weight * gap
            weight = weight / 2
        return dict(reversed(terms.items()))


def boundary(x, target, margin):
    """How far neurons are from safely on the side of zero where the target is.

    l[b] = sum_{h,w,c} max(0, m + x)^2 where target <= 0, max(0, m - x)^2 elsewhere

    Args:
        x: float [B, H, W, C].
        target: float [B, H, W, C]; only its sign is read.
        margin: float > 0, m.

    Returns:
        float32 [B].

    Example:
        >>> x = ops.array([[[[-2.0, -0.5, 0.5, 2.0]]]])
        >>> float(boundary(x, -ops.ones_like(x), 1.0)[0])  # 0 + 0.25 + 2.25 + 9
        11.5
    """
    x = ops.cast(x, "float32")
    side = ops.where(target > 0, -1.0, 1.0)
    return ops.sum(ops.square(ops.relu(margin + side * x)), axis=(1, 2, 3))
