"""DATS: the teacher learns an image's details, the student its structure."""

import keras
from keras import ops

from tf_mskd.methods import Method, naming, ranges, register
from tf_mskd.methods.common import attention_sampling as sampling
from tf_mskd.methods.common.self_taught import soft_cross_entropy


@register("dats")
class DATS(Method):
    """Distillation over two views that the teacher's attention samples.

    The student reads a view of each image that keeps its structure, the teacher one of
    its details. With A the maps of `attention_sampling.trilinear_attention` on the
    teacher's feature map of the plain image, negative values set to 0 and resized
    (bilinear) to the image, the first is sampled by their mean to the `power`, the
    second by one of them, drawn at random. On B images
        L = sum_k mean CE(y, z_k) + mean CE(y, t) + sum_k mean SCE_T(t, z_k),
    z_k the student's logits of the first view at exit k, t the teacher's of the second
    at its last exit, SCE of `self_taught.soft_cross_entropy`, without T squared. Both
    networks learn, at one rate; the teacher from labels alone. Its term is
    "dats_teacher_ce/exit_k", where exit_k is the student's shallowest.

    Args:
        temperature: float > 0, T. Unitless.
        stage: int >= 0, number of the teacher's feature map; 0 is its last. A map below
            4x4 attends to little: smaller images need a shallower stage.
        power: float > 0, of the mean map. Higher ones enlarge more, and take the view
            further from the plain images that the student is evaluated on.

    Raises:
        UserError: if an argument is out of range, or the map has a side of one.

    Source: "DATS", Journal of Data and Information Quality 2025, doi 10.1145/3721984,
        of which the abstract is known; sampler and soft term are those of the released
        code of TASN (Zheng, Fu, Zha, Luo, CVPR 2019, arXiv 1903.06150).
    Reconstruction: which network reads which view and T = 10 follow TASN's code; that
        negative attention becomes 0 and that the stage is 2 are inferred. The power is
        1 in TASN's PyTorch code; its MXNet code has 2 and calls it optional.
    Departs from the source: the views are seen in training alone, as a student is used
        without its teacher; TASN samples in evaluation too.
    Measured: on the built-in digits (8x8) a student reaches 93 % of its own view and
        78 % of the plain test images (41 % with both views in its batch norms, no
        limit of the density and power 2; 91 % where nothing is sampled). On 20 classes
        of Tiny ImageNet it is three points below KD; see results/tasks.

    Example:
        >>> DATS().output_pairs(["exit_1"], ["exit_4", "feature_2", "feature_4"])
        {'exit_1': ('exit_4', 'feature_2')}
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "dats": 1.0, "dats_teacher_ce": 1.0}
    label_use = "soft"
    teacher_view = True
    trains_teacher = True

    def __init__(self, temperature=10.0, stage=2, power=1.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_positive(temperature=temperature, power=power)
        ranges.check_at_least(0, stage=stage)
        self.temperature, self.stage, self.power = temperature, stage, power
        self.seed = keras.random.SeedGenerator()

    def output_pairs(self, student, teacher):
        """Pairs every student exit with the teacher's last one, and its feature map."""
        feature = naming.deepest(teacher, "feature", "teacher")
        if self.stage:
            feature = f"feature_{self.stage}"
        if feature not in teacher:
            found = ", ".join(naming.numbered(teacher, "feature"))
            self.fail(
                f"reads {feature} of the teacher, which makes {found}: set stage."
            )
        pairs = naming.every_exit(student, teacher)
        return {name: (*guides, feature) for name, guides in pairs.items()}

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Checks that the feature map has places to attend to."""
        super().build(student_shape, teacher_shape, targets_shape)
        _, feature = next(iter(self.pairs.values()))
        height, width = teacher_shape[feature][1:3]
        if min(height, width) < 2:
            self.fail(
                f"samples by {feature} of the teacher, which has {height}x{width} "
                "places: name a shallower stage, such as stage=1."
            )

    def augment(self, images, targets, student, teacher):
        """Returns the structure's view; the target "teacher_view" is the details'."""
        _, feature = next(iter(self.pairs.values()))
        maps = sampling.trilinear_attention(teacher(images)[feature])
        structure = self._resized(ops.mean(maps, axis=-1), images)
        detail = self._resized(self._drawn(maps), images)
        view = sampling.sample(images, structure**self.power)
        return view, {**targets, "teacher_view": sampling.sample(images, detail)}

    def _drawn(self, maps):
        """One of the maps [B, h, w, C] of each image, [B, h, w]."""
        count, channels = ops.shape(maps)[0], maps.shape[-1]
        channel = keras.random.randint((count,), 0, channels, seed=self.seed)
        return ops.sum(maps * ops.one_hot(channel, channels)[:, None, None], axis=-1)

    def _resized(self, attention, images):
        """The map [B, h, w], without negative values, in the images' size."""
        size = tuple(images.shape[1:3])
        return ops.image.resize(ops.relu(attention)[..., None], size)[..., 0]

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "dats/exit_k", "dats_teacher_ce/exit_1"}, each [B]."""
        terms = self.label_terms(student, targets)
        exits = [name for name in self.pairs if name in student]
        guide, _ = self.pairs[exits[0]]
        logits = teacher[guide]
        labels = self.label_loss(targets["label"], logits)
        terms[f"dats_teacher_ce/{exits[0]}"] = labels
        for name in exits:
            soft = soft_cross_entropy(logits, student[name], self.temperature)
            terms[f"dats/{name}"] = soft
        return terms
