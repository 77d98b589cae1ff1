"""PURF: a teacher whose representation changes little when the image does."""

import keras
from keras import ops

from tf_mskd.methods import Method, losses, naming, ranges, register, rows


@register("purf")
class PURF(Method):
    """Trains a teacher to be smooth; the student then learns from it by "kd".

    L = sum_k CE(y, z_k) + mean_b ||nrm(v(x)) - nrm(v(x~))||^2, x~ = x + noise,
    v the vector before the last exit [B, D], noise normal with deviation `noise` in
    units of the pixels' own; z_k logits of the clean image. Both vectors learn. Row 2i
    of the changed batch is image i, row 2i + 1 the same with noise, not clipped.

    Args:
        noise: float >= 0, in units of `pixel_std`.
        pixel_std: float > 0, deviation of pixels in units of [0, 1]. Default: the mean
            of CIFAR-100's channels.

    Raises:
        UserError: for an argument out of range.

    Source: "PURF: Improving teacher representations by imposing smoothness for
        knowledge distillation", Applied Soft Computing (2024).
    Departs from the source: clean and noisy rows pass in one batch, so batch norm sees
        both; with statistics of the clean rows alone they would need two passes.
    Reconstruction: known is that the teacher's representation is made smooth and the
        student distilled as usual. The penalty, unit vectors in it (else it would
        shrink them), noise 0.1 and weight 1 are choices made here.

    Example:
        >>> PURF().default_weights
        {'ce': 1.0, 'purf': 1.0}
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "purf": 1.0}
    needs_teacher = False
    rows_per_image = 2

    def __init__(self, noise=0.1, pixel_std=0.267, **kwargs):
        super().__init__(**kwargs)
        ranges.check_at_least(0, noise=noise)
        ranges.check_positive(pixel_std=pixel_std)
        self.noise, self.pixel_std = noise, pixel_std
        self.seed_generator = keras.random.SeedGenerator()

    def output_pairs(self, student, teacher):
        """Reads the vector before the last exit."""
        return {naming.deepest(student, "embedding", "student"): ()}

    def augment(self, images, targets, student, teacher):
        """Puts a noisy copy behind each image."""
        images = ops.cast(images, "float32")
        deviation = 255 * self.pixel_std * self.noise
        noise = keras.random.normal(
            ops.shape(images), 0.0, deviation, seed=self.seed_generator
        )
        return rows.interleave([images, images + noise]), rows.repeat(targets, 2)

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "purf/embedding_K": float32 [B]}."""
        plain = rows.first_rows(student, 2)
        terms = self.label_terms(plain, rows.first_rows(targets, 2))
        (name,) = self.pairs
        if name in student:
            gap = losses.normalize(plain[name]) - losses.normalize(student[name][1::2])
            terms[f"purf/{name}"] = ops.sum(ops.square(gap), axis=-1)
        return terms
