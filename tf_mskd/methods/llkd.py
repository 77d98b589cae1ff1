"""LLKD: a small network enhances dark images as a large one does."""

from keras import ops

from tf_mskd.methods import Method, losses, naming, register
from tf_mskd.tasks.image_quality import gradient_map, mean_absolute_error, ssim


@register("llkd")
class LLKD(Method):
    """Attention maps and answers of a teacher, and a branch that learns edges.

    L = sum_k |z_k - y| + 0.2 (1 - SSIM(z_k, y)) + 0.1 |G(z_k) - G(y)|
        + 0.5 |g - G(y)| + 0.1 * sum_l AT_l + 0.5 * sum_k |z_k - t_k|,
    |.| the mean absolute error, G the gradient map of `image_quality`, g the student's
    `gradient_1`, AT_l = sum_i (A(F_s^l) - A(F_t^l))_i^2 with A of `losses.attention`;
    exits and maps are paired from the deep end, the teacher under a stopped gradient.

    Source: low-light image enhancement with knowledge distillation, Neurocomputing,
        2022, doi 10.1016/j.neucom.2022.10.083, the abstract.
    Reconstruction: the abstract documents the gradient branch and attention maps of the
        teacher; the other terms, all weights and the network are ours.

    Example:
        >>> LLKD().default_weights["at"]
        0.1
    """

    tasks = ("restoration",)
    aux_heads = ("gradient",)
    label_use = "class"
    default_weights = {
        "ce": 1.0,
        "ssim": 0.2,
        "edges": 0.1,
        "branch": 0.5,
        "at": 0.1,
        "output": 0.5,
    }

    def output_pairs(self, student, teacher):
        """Pairs exits and feature maps from the deep end; the branch has no target."""
        remedy = "build it with create_model('unet', ..., aux_heads=['gradient'])"
        (branch,) = self.require(student, "gradient", "student", remedy)
        exits = naming.from_deep_end(student, teacher, "exit")
        maps = naming.from_deep_end(student, teacher, "feature")
        return {**exits, **maps, branch: ()}

    def call(self, student, teacher, targets):
        """Returns the terms named in `default_weights`, each float32 [B]."""
        terms, clean = self.label_terms(student, targets), targets["label"]
        steepness = gradient_map(clean)
        for name in naming.numbered(student, "exit"):
            image = student[name]
            terms[f"ssim/{name}"] = 1.0 - ssim(image, clean)
            edges = gradient_map(image)
            terms[f"edges/{name}"] = mean_absolute_error(edges, steepness)
        for name in naming.numbered(student, "gradient"):
            terms[f"branch/{name}"] = mean_absolute_error(student[name], steepness)
        for name, student_x, teacher_x in self.paired(student, teacher):
            if naming.is_kind(name, "exit"):
                guide = self.task.imitation(teacher_x, student_x, 1.0)
                terms[f"output/{name}"] = guide
            else:
                terms[f"at/{name}"] = attention_gap(student_x, teacher_x)
        return terms


def attention_gap(x, target):
    """AT_l of `LLKD` for maps [B, h, w, C]; no gradient flows into `target`."""
    x, target = losses.pool_to_smaller(x, ops.stop_gradient(target))
    gap = losses.attention(x) - losses.attention(target)
    return ops.sum(ops.square(gap), axis=-1)
