"""AMKD: student outputs beyond the teacher's decision boundary are kept away."""

import keras
from keras import ops

from tf_mskd.methods import Method, losses, naming, ranges, register, rows
from tf_mskd.methods.common.gradients import input_gradient
from tf_mskd.tasks import softmax


@register("amkd")
class AMKD(Method):
    """Adversarial metric distillation: a triplet whose negatives are boundary samples.

    L = sum_k CE(y, z_k) + KD_T(t, z) + f(e) * tri,
    tri[b] = max(d(t, z) - d(t, z') + margin, 0), 0 where image b is no candidate;
    z and t [B, classes] the last student and teacher logits of image b, z' the
    student's of its boundary sample, d the distance of `losses.triplet_margin`. No
    gradient flows into t. f falls linearly from 1 to 0 at 3/4 of the run.

    Candidates are the images that both networks classify correctly; of more than
    `num_candidates`, those where the networks' probabilities of the wrong classes
    differ most (squared, summed). `attack` moves a candidate towards a wrong class
    drawn by the teacher's probabilities. Row 2i of the changed batch is image i, row
    2i + 1 its boundary sample, or image i again where that is no candidate.

    Args:
        temperature: float > 0, T.
        margin: float >= 0, in units of logits.
        steps: int >= 1, of the attack; each runs the teacher forth and back.
        step_size: float > 0, length of a step for each unit between the two logits, in
            units of `pixel_std`.
        num_candidates: int >= 1, most boundary samples of a batch; on several replicas,
            of the local part of one.
        pixel_std: float > 0, deviation of pixels in units of [0, 1]. Default: the mean
            of CIFAR-100's channels.

    Raises:
        UserError: for an argument out of range.

    Source: attack and candidates: Heo, Lee, Yun, Choi, AAAI 2019, arXiv 1805.05532;
        triplet: Oki, Abe, Miyao, Kurita, IJCNN 2020, arXiv 2004.08116.
    Departs from the source: boundary samples are clipped to valid pixels (there to 2.5
        deviations), one deviation stands for all channels, the student judges in
        inference mode, and batch norm sees images and boundary samples in one batch.
    Reconstruction: of adversarial metric distillation (2020) the idea alone is public.
        The sum of the terms, weights 1, T = 4, margin = 1, and taking the student's
        output as the negative (not the teacher's) are choices made here.

    Example:
        >>> AMKD().schedule(epoch=3, epochs=8, history=[])
        {'amkd': 0.5}
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "kd": 1.0, "amkd": 1.0}
    label_use = "class"
    rows_per_image = 2

    def __init__(
        self,
        temperature=4.0,
        margin=1.0,
        steps=10,
        step_size=0.3,
        num_candidates=64,
        pixel_std=0.267,
        **kwargs,
    ):
        super().__init__(**kwargs)
        ranges.check_positive(
            temperature=temperature, step_size=step_size, pixel_std=pixel_std
        )
        ranges.check_at_least(0, margin=margin)
        ranges.check_at_least(1, steps=steps, num_candidates=num_candidates)
        self.temperature, self.margin = temperature, margin
        self.steps, self.step_size = steps, step_size
        self.num_candidates, self.pixel_std = num_candidates, pixel_std
        self.seed_generator = keras.random.SeedGenerator()

    def output_pairs(self, student, teacher):
        """Pairs the last exits."""
        teacher_exit = naming.deepest(teacher, "exit", "teacher")
        return {naming.deepest(student, "exit", "student"): (teacher_exit,)}

    def augment(self, images, targets, student, teacher):
        """Puts a boundary sample behind each image; targets["boundary"] is 1 for those.

        In a phase that does not compute the last exit there are no candidates.
        """
        images = ops.cast(images, "float32")
        ((name, (teacher_name,)),) = self.pairs.items()
        logits = teacher(images).get(teacher_name)
        moved, chosen = images, ops.zeros(ops.shape(images)[:1], "bool")
        if logits is not None:
            label = ops.cast(targets["label"], "int32")
            chosen, goal = self._choose(label, student(images)[name], logits)
            moved = attack(
                lambda x: teacher(x)[teacher_name],
                images,
                label,
                goal,
                steps=self.steps,
                step_size=255 * self.pixel_std * self.step_size,
                bounds=(0.0, 255.0),
            )
            moved = ops.where(ops.reshape(chosen, (-1, 1, 1, 1)), moved, images)
        targets = {**targets, "boundary": ops.cast(chosen, "float32")}
        images = rows.interleave([images, ops.stop_gradient(moved)])
        return images, rows.repeat(targets, 2)

    def _choose(self, label, student_logits, teacher_logits):
        """Which images are moved, bool [B], and to which class each, int32 [B]."""
        guesses = [ops.argmax(z, axis=-1) for z in (student_logits, teacher_logits)]
        both = ops.logical_and(*(ops.equal(guess, label) for guess in guesses))
        is_label = ops.cast(ops.one_hot(label, teacher_logits.shape[-1]), "bool")
        gap = ops.square(ops.softmax(student_logits) - ops.softmax(teacher_logits))
        gap = ops.sum(ops.where(is_label, 0.0, gap), axis=-1)
        order = ops.argsort(ops.where(both, -gap, 1.0))
        is_first = ops.argsort(order) < self.num_candidates
        wrong = ops.where(is_label, -1e30, teacher_logits)
        goal = keras.random.categorical(wrong, 1, "int32", self.seed_generator)
        return ops.logical_and(both, is_first), goal[:, 0]

    def schedule(self, epoch, epochs, history):
        """The triplet fades out by 3/4 of the run."""
        return {"amkd": max(0.0, 1 - epoch / (0.75 * epochs))}

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "kd/exit_K", "amkd/exit_K": float32 [B]}."""
        plain = rows.first_rows(student, 2)
        terms = self.label_terms(plain, rows.first_rows(targets, 2))
        for name, student_x, teacher_x in self.paired(student, teacher):
            target, moved = ops.stop_gradient(teacher_x[::2]), student_x[1::2]
            kl = softmax.softened_kl(target, plain[name], self.temperature)
            terms[f"kd/{name}"] = kl
            triplet = losses.triplet_margin(target, plain[name], moved, self.margin)
            if "boundary" in targets:  # always, behind `augment`
                triplet = triplet * targets["boundary"][::2]
            terms[f"amkd/{name}"] = triplet
        return terms


def attack(logits, images, base, goal, *, steps, step_size, bounds):
    """Moves images towards a network's boundary between two classes.

    x <- clip(x + step_size * (z_c - z_k + 1e-4) * g / ||g||), g = grad_x (z_k - z_c),
    until the highest logit is no longer that of class c, or `steps` are done

    Args:
        logits: function of images -> [B, classes].
        images: float32 [B, ...].
        base, goal: int [B], the classes c and k.
        steps: int.
        step_size: float.
        bounds: (float, float), least and largest entry of an image.

    Returns:
        float32, as `images`; an image that starts in another class than c stays.
    """
    ones = [1] * (len(images.shape) - 1)

    def to_goal(x):
        z = ops.cast(logits(x), "float32")
        to, off = (ops.one_hot(c, z.shape[-1], dtype=z.dtype) for c in (goal, base))
        return ops.sum(z * (to - off), axis=-1), z

    def step(_, x):
        gradient, gap, z = input_gradient(to_goal, x)
        is_base = ops.equal(ops.argmax(z, axis=-1), ops.cast(base, "int32"))
        length = ops.where(is_base, step_size * (1e-4 - gap), 0.0)
        axes = tuple(range(1, len(x.shape)))
        move = ops.reshape(length, [-1, *ones]) * losses.normalize(gradient, axes)
        return ops.clip(x + move, *bounds)

    return ops.fori_loop(0, steps, step, images)
