"""BRCD: a student's codes follow a teacher's, image by image and cluster by cluster."""

import numpy as np
from keras import ops

from tf_mskd.methods import naming, ranges, register
from tf_mskd.methods.cib import CIB
from tf_mskd.methods.common import codes
from tf_mskd.methods.common.contrast import cosines
from tf_mskd.utils.errors import UserError


@register("brcd")
class BRCD(CIB):
    """Bit-mask robust contrastive distillation of codes; with the terms of CIB.

    At every exit k, s1 the student's codes of view 1, t1, t2 the codes of the teacher's
    last exit, all -1 or 1, [B, bits]; a the image's cluster, m its mask:
        brcd = mean_r - p_r + ln( exp p_r + sum_{q of N(r)} exp S(r, q) ),
        z = [s1 m ; t2 m],  S(r, q) = cos(z_r, z_q) / tau,
        p_r = alpha_i cos(s1_i, t1_i) / tau + (1 - alpha_i) S(r, pair r),
    r one of 2 B rows, i its image,
    alpha_i = alpha where the centre nearest to t2_i is that of a, else 1: a view that
    the teacher takes for another thing is no positive. N(r) leaves out r, its pair and
    the rows of r's own cluster, a for rows of s1 and that nearest centre for rows of
    t2. All three terms are as `default_weights`. Contrasts are local.

    Before the first step k-means clusters the teacher's codes of the training images.
    A bit of a cluster counts, m = 1, where its mean is beyond the margin: one near 0
    says nothing of the cluster. Clusters, centres and masks are part of the state.

    Args:
        num_examples: int, size of the training split; `tf_mskd.train` fills it in.
        num_clusters: int >= 2, such as the number of classes.
        tau: float > 0. Unitless.
        alpha: float in [0, 1].
        margin: float in [0, 1), of a bit's mean.
        n_init: int > 0, beginnings of k-means, of which the best stays.

    Raises:
        UserError: if an argument is out of range or num_examples is missing.

    Source: He, Song, Chen et al., "Bit-mask Robust Contrastive Knowledge Distillation
        for Unsupervised Semantic Hashing", WWW 2024, arXiv 2403.06071, and its code.
    Departs from the source: the released code makes masks of zeros alone, by chaining
        two `where`, so that no contrast counts; the rule here is the paper's. It also
        takes the nearest centre of masked codes. A student with several exits, which
        the source has not, learns all terms at each of them. No elbow rule.

    Example:
        >>> BRCD(num_examples=100).output_pairs(["exit_1"], ["exit_1", "exit_4"])
        {'exit_1': ('exit_4',)}
    """

    default_weights = {**CIB.default_weights, "brcd": 1.0}
    target_keys = ("second_view", "index")
    needs_teacher = True

    def __init__(
        self,
        num_examples=0,
        num_clusters=10,
        tau=0.3,
        alpha=0.8,
        margin=0.5,
        n_init=30,
        **kwargs,
    ):
        super().__init__(tau, **kwargs)
        ranges.check_at_least(2, num_clusters=num_clusters)
        ranges.check_at_least(1, n_init=n_init)
        ranges.check_fraction(alpha=alpha)
        if not 0 <= margin < 1:
            raise UserError(f"margin must be in [0, 1), got {margin}.")
        self.num_examples, self.num_clusters = num_examples, num_clusters
        self.alpha, self.margin, self.n_init = alpha, margin, n_init

    def output_pairs(self, student, teacher):
        """Pairs every student exit with the teacher's last one."""
        return naming.every_exit(student, teacher)

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Makes the clusters' variables."""
        super().build(student_shape, teacher_shape, targets_shape)
        if self.num_examples < 1:
            self.fail(
                "keeps the cluster of every example: give num_examples, the size of "
                "the training split (tf_mskd.train fills it in)."
            )
        ((name, *_),) = set(self.pairs.values())
        centres = self.num_clusters, teacher_shape[name][-1]

        def state(name, shape, dtype="float32"):
            return self.add_weight(
                shape=shape,
                initializer="zeros",
                trainable=False,
                name=name,
                dtype=dtype,
            )

        self.cluster = state("cluster", (self.num_examples,), "int32")
        self.centres = state("centres", centres)
        self.mask = state("mask", centres)

    @property
    def is_prepared(self):
        """Whether the teacher's codes are clustered."""
        return bool(np.any(ops.convert_to_numpy(self.centres)))

    def prepare(self, teacher, targets):
        """Clusters the teacher's codes; see the class.

        Args:
            teacher: dict, output -> float array [n, ...], of the images as they are.
            targets: dict, "index" -> int array [n], their positions.
        """
        from sklearn.cluster import KMeans

        ((name, *_),) = set(self.pairs.values())
        made = np.where(teacher[name] >= 0, 1.0, -1.0)
        different = len(np.unique(made, axis=0))
        if different < self.num_clusters:
            self.fail(
                f"makes {self.num_clusters} clusters of the teacher's codes, it has "
                f"{different} different ones: train it longer, or set num_clusters="
                f"{different} or fewer."
            )
        found = KMeans(self.num_clusters, n_init=self.n_init, random_state=0).fit(made)
        cluster = np.zeros(self.num_examples, np.int32)
        cluster[targets["index"]] = found.labels_
        self.cluster.assign(cluster)
        self.set_centres(found.cluster_centers_)

    def set_centres(self, centres):
        """Sets the centres of the clusters, float [clusters, bits], and their masks."""
        self.centres.assign(centres)
        self.mask.assign(np.abs(centres) > self.margin)

    def call(self, student, teacher, targets):
        """Returns the terms of `CIB` and {"brcd/exit_k": scalar}."""
        terms = super().call(student, teacher, targets)
        own = ops.take(self.cluster, targets["index"][::2], axis=0)
        for name, student_x, teacher_x in self.paired(student, teacher):
            views = teacher_x[::2], teacher_x[1::2]
            terms[f"brcd/{name}"] = self.contrast(student_x[::2], *views, own)
        return terms

    def contrast(self, student, teacher, second, own):
        """The third term.

        Args:
            student: float [B, bits], h of view 1.
            teacher, second: float [B, bits], the teacher's h of views 1 and 2.
            own: int [B], the clusters of the images.
        """
        student = codes.straight_through(student)
        teacher, second = codes.signs(teacher), codes.signs(second)
        seen = self._nearest(second)
        mask = ops.take(self.mask, own, axis=0)
        anchor = codes.cosine(student, teacher) / self.tau
        student, second = student * mask, second * mask
        pair = codes.cosine(student, second) / self.tau
        alpha = ops.where(seen == own, self.alpha, 1.0)
        positive = ops.tile(alpha * anchor + (1 - alpha) * pair, 2)
        joined = ops.concatenate([student, second], axis=0)
        scores = cosines(joined, joined) / self.tau
        cluster = ops.concatenate([own, seen], axis=0)
        negative = codes.others(ops.shape(own)[0])
        negative = negative & (cluster[:, None] != cluster[None, :])
        return ops.mean(codes.info_nce(positive, scores, negative))

    def _nearest(self, made):
        """The cluster of the nearest centre, int32 [B]."""
        centres = ops.convert_to_tensor(self.centres)
        squares = ops.sum(ops.square(centres), axis=-1)
        distance = squares - 2 * ops.matmul(made, ops.transpose(centres))
        return ops.cast(ops.argmin(distance, axis=-1), "int32")
