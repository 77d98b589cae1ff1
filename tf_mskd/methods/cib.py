"""CIB: codes of two views of an image agree, those of other images do not."""

from keras import ops

from tf_mskd.methods import Method, naming, ranges, register, rows
from tf_mskd.methods.common import codes
from tf_mskd.methods.common.contrast import cosines
from tf_mskd.utils.errors import UserError


@register("cib")
class CIB(Method):
    """Contrastive information bottleneck: hashing without labels or a teacher.

    At every exit k, over two views of B images with codes c [2 B, bits], -1 or 1:
        nt_xent = mean_r - ln( exp s(r, pair r) / sum_{q != r} exp s(r, q) ),
        s(r, q) = cos(c_r, c_q) / tau,
        bits = mean_b (KL(p1[b] || p2[b]) + KL(p2[b] || p1[b])) / 2,
    p1, p2 = sigmoid(h) of the two views, KL of Bernoulli bits, summed over the bits,
    its second argument held. The gradient of a code is that of sigmoid(h). nt_xent has
    weight 1, bits 0.001. Contrasts are local.

    The pipeline makes the second view, as the first one: the source's views are
    `--augment=resized_crop,flip,jitter,grey,blur`.

    Args:
        tau: float > 0. Unitless.

    Raises:
        UserError: if tau is not positive.

    Source: Qiu, Su, Ou, Yu, Chen, "Unsupervised Hashing with Contrastive Information
        Bottleneck", IJCAI 2021, arXiv 2105.06138, in the form of the code that BRCD's
        authors released.
    Departs from the source: a student with several exits, which the source has not,
        learns both terms at each of them.

    Example:
        >>> CIB().target_keys
        ('second_view',)
    """

    tasks = ("hashing",)

    default_weights = {"nt_xent": 1.0, "bits": 0.001}
    target_keys: tuple[str, ...] = ("second_view",)
    rows_per_image = 2
    needs_teacher = False

    def __init__(self, tau=0.3, **kwargs):
        super().__init__(**kwargs)
        ranges.check_positive(tau=tau)
        self.tau = tau

    def augment(self, images, targets, student, teacher):
        """Returns [2 * B, H, W, C]; row 2 * i is view 1, row 2 * i + 1 view 2."""
        second = ops.cast(targets["second_view"], images.dtype)
        return rows.interleave([images, second]), rows.repeat(targets, 2)

    def call(self, student, teacher, targets):
        """Returns {"nt_xent/exit_k": scalar, "bits/exit_k": float32 [B]}."""
        terms = {}
        for name in naming.numbered(student, "exit"):
            one, other = student[name][::2], student[name][1::2]
            self.check_images(one)
            terms[f"nt_xent/{name}"] = self.nt_xent(one, other)
            terms[f"bits/{name}"] = codes.symmetric_kl(one, other)
        return terms

    def check_images(self, one):
        """Raises `UserError` for a batch that is known to hold one image only."""
        if one.shape[0] == 1:
            raise UserError(
                f"Method {self.registry_name!r} contrasts images with others, got a "
                "batch of one: raise --batch_size."
            )

    def nt_xent(self, one, other):
        """The contrast of the codes of two views, h [B, bits] each; a scalar."""
        one, other = codes.straight_through(one), codes.straight_through(other)
        joined = ops.concatenate([one, other], axis=0)
        pair = ops.tile(codes.cosine(one, other), 2) / self.tau
        scores = cosines(joined, joined) / self.tau
        negative = codes.others(ops.shape(one)[0])
        return ops.mean(codes.info_nce(pair, scores, negative))
