"""The contract of a distillation method."""

import typing

import keras

from tf_mskd.methods.common import naming
from tf_mskd.tasks.base import Task
from tf_mskd.tasks.classification import Classification
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.types import Network, Shapes, Tensor, Tensors


class Method(keras.layers.Layer):
    """Maps named network outputs to named, unweighted loss terms.

    A method is a Keras layer, so its own variables are tracked, saved and trained with
    the student. Its `call` takes three dicts of tensors and returns the terms:

        call(student, teacher, targets) -> {"term/output": float32 [rows] or scalar}

    `student` and `teacher` hold network outputs by name: the exits in training and what
    `output_pairs` requests; `targets` holds what the data pipeline delivers. A term
    that is a mean over examples stays [rows]: the Distiller reduces it with sample
    weights, exactly, on any number of replicas. A term that compares examples with each
    other is a scalar over the local batch. Terms are unweighted; the Distiller
    multiplies by the weight of the term and of the exit, and logs them bare. An output
    the running phase does not compute is absent from `student`.

    Attributes:
        default_weights: dict, term -> weight used unless the Distiller is told others.
        target_keys: tuple of str, the targets that `augment` and `call` read, such as
            "label" (int [B]); `utils.targets.TARGETS` lists all with shape, dtype and
            meaning.
        label_use: str, how labels are read: "terms" by `label_terms` alone, "soft" in
            further terms too, "class" where they must be class numbers. With "terms"
            a batch may have no labels if the term "ce" weighs 0; all but "class" take
            soft labels, float [B, classes].
        tasks: tuple of str, names of the tasks that it is made for; () for any. One for
            any reads exits by `task.imitation` and `label_loss` alone.
        rows_per_image: int, rows that `augment` makes of each image; row
            `rows_per_image * i` is image i as it would be without.
        aux_heads: tuple of str, kinds of further outputs that the student must have
            beyond its exits; see `tf_mskd.create_model`.
        needs_teacher: bool, whether `Distiller` must be given a teacher.
        teacher_view: bool, whether `augment` adds the target "teacher_view", images
            [B, H, W, C] that the teacher reads instead of the student's.
        trains_teacher: bool, whether the teacher learns too; its outputs then carry
            gradients, and the method stops those it does not need.
        teacher_rate: float, the teacher's learning rate relative to the student's.
    """

    default_weights: dict[str, float] = {}
    target_keys: tuple[str, ...] = ("label",)
    label_use: str = "terms"
    tasks: tuple[str, ...] = ()
    rows_per_image: int = 1
    aux_heads: tuple[str, ...] = ()
    needs_teacher: bool = True
    teacher_view: bool = False
    trains_teacher: bool = False
    teacher_rate: float = 1.0

    def __init__(
        self, dtype: str = "float32", name: str | None = None, **kwargs: typing.Any
    ):
        # terms stay float32 in mixed precision; Keras numbers names it makes up, and
        # checkpoints keep the variables' paths
        name = name or type(self).__name__.lower()
        super().__init__(dtype=dtype, name=name, **kwargs)
        self.pairs = {}
        self.task: Task = Classification()  # until `set_task` says another
        self.set_label_loss(self.task.label_loss)

    def output_pairs(self, student: list[str], teacher: list[str]) -> naming.Pairs:
        """Names the outputs that the method reads, and their targets of the teacher.

        Called with all outputs of both networks. It must return the same pairs when
        called with the outputs in them alone.

        Args:
            student: list of str, all outputs that the student makes.
            teacher: list of str, all outputs that the teacher makes; [] without
                one.

        Returns:
            dict, student output -> tuple of teacher outputs (() where none is its
            target).

        Raises:
            UserError: if a network lacks what the method needs.
        """
        return {}

    def build(
        self,
        student_shape: Shapes,
        teacher_shape: Shapes | None = None,
        targets_shape: Shapes | None = None,
    ) -> None:
        """Keeps the pairs; a method with variables makes them after calling this.

        Args:
            student_shape: dict, output name -> shape with None for the batch.
            teacher_shape: the same for the teacher, or None.
            targets_shape: dict, target -> shape.
        """
        self.pairs = self.output_pairs(list(student_shape), list(teacher_shape or {}))

    @property
    def is_prepared(self) -> bool:
        """Whether it needs no `prepare`, or has had it."""
        return True

    def prepare(
        self,
        teacher: dict[str, typing.Any],
        targets: dict[str, typing.Any],
    ) -> None:
        """Fills the method's own variables before the first step, until `is_prepared`.

        A run calls it once; what it found is in variables that are not trained, and so
        in every checkpoint. With `Distiller.fit` it is the caller's to do:

            distiller.method.prepare(
                distiller.teacher_network.predict(images), {"index": np.arange(n)}
            )

        Args:
            teacher: dict, output of the teacher that the method reads -> array
                [n, ...], of all training images as they are.
            targets: dict, "index" -> int array [n], their positions in the split.
        """

    @property
    def changes_batch(self) -> bool:
        """Whether the method has an `augment` of its own."""
        return type(self).augment is not Method.augment

    def augment(
        self,
        images: Tensor,
        targets: Tensors,
        student: Network,
        teacher: Network | None,
    ) -> tuple[Tensor, Tensors]:
        """Changes the batch before both networks see it; most methods keep it.

        Runs outside the gradient tape.

        Args:
            images: [B, H, W, C], raw values 0 to 255.
            targets: dict of tensors.
            student, teacher: functions of images that run the networks in inference
                mode and return their dicts of outputs; `teacher` may be None.

        Returns:
            (images, targets); with `rows_per_image` above 1 the rows of one image
            follow each other: row rows_per_image * i + v is view v of image i.
        """
        return images, targets

    def schedule(
        self, epoch: int, epochs: int, history: list[dict[str, float]]
    ) -> dict[str, float]:
        """Factors on the weights of terms in one epoch, beside their constant weight.

        Args:
            epoch: int, from 0.
            epochs: int, length of the run.
            history: list of dicts, the logs of the epochs before.

        Returns:
            dict, term -> float; 1 for terms not named.
        """
        return {}

    def call(self, student: Tensors, teacher: Tensors, targets: Tensors) -> Tensors:
        """Returns the terms; every method defines its own."""
        raise TypeError(f"{type(self).__name__} defines no call(); see Method.")

    def set_task(self, task: Task) -> None:
        """Sets what the exits answer, at first classification.

        Raises:
            UserError: if the method is made for other tasks.
        """
        if self.tasks and task.name not in self.tasks:
            self.fail(
                f"is made for the task {' or '.join(self.tasks)}, got {task.name!r}: "
                "take another method, such as 'mskd'."
            )
        self.task = task
        self.set_label_loss(task.label_loss)

    def set_label_loss(self, loss: typing.Callable[[Tensor, Tensor], Tensor]) -> None:
        """Sets the loss of labels and outputs, at first that of the task.

        Args:
            loss: function of (labels, outputs) -> float32 [rows].
        """
        self.label_loss = loss

    def label_terms(self, student: Tensors, targets: Tensors) -> Tensors:
        """Returns {"ce/exit_k": float32 [rows]}, the labels at every exit, if any."""
        if "label" not in targets:
            return {}
        return {
            f"ce/{name}": self.label_loss(targets["label"], student[name])
            for name in naming.numbered(student, "exit")
        }

    def paired(
        self, student: Tensors, teacher: Tensors
    ) -> typing.Iterator[tuple[str, Tensor, Tensor]]:
        """Yields (name, student output, teacher output) for the pairs on hand.

        These are the pairs of `output_pairs` that the running phase computes.
        """
        for name, teacher_names in self.pairs.items():
            if name in student:
                for teacher_name in teacher_names:
                    yield name, student[name], teacher[teacher_name]

    def require(self, names: list[str], kind: str, role: str, remedy: str) -> list[str]:
        """Returns the outputs "kind_k" among the `names` that a network makes.

        Args:
            names: list of str.
            kind: str, such as "projection".
            role: str, the network in words, such as "teacher".
            remedy: str, what to do where there is none.

        Returns:
            list of str, one or more, shallow to deep.

        Raises:
            UserError: if there is none.
        """
        found = naming.numbered(names, kind)
        if not found:
            makes = ", ".join(names) or "nothing"
            self.fail(f"reads {kind}_k of the {role}, which makes {makes}: {remedy}.")
        return found

    def fail(self, problem: str) -> typing.NoReturn:
        """Raises a `UserError` that begins with the method's name."""
        raise UserError(f"Method {getattr(self, 'registry_name', '?')!r} {problem}")
