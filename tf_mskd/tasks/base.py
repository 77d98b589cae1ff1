"""The contract of a task: what an exit answers, and how answers are judged."""

import abc
import typing
from collections.abc import Mapping

import numpy as np

from tf_mskd.tasks import heads
from tf_mskd.tasks.ensemble import ensemble_scores
from tf_mskd.tasks.figures import Figures, Mean
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.types import Tensor


class Task(abc.ABC):
    """What the exits of a network answer.

    All methods take tensors of any Keras backend and keep the batch axis, so that
    sample weights and any number of replicas can be applied exactly afterwards. The
    shape of an exit's output is given without its batch axis.

    A task is a file in `tf_mskd/tasks` of the task's name and one line in `TASKS`.

    Attributes:
        name: name of the task.
        metric: name of the main figure over a data set; higher is better.
        step_metric: name of what `quality` is, which every training step can log.
        unit: unit of both figures; those in "%" are fractions in [0, 1], shown times
            100.
        further_units: dict, name of a further figure -> its unit, where it has another.
        probabilities: what the probabilities of this task are called by
            `models.probabilities.kind_of_rows`; "" where exits give no logits.
        one_class: whether an answer is one class of several, which weights of exits,
            early exits, caches of top classes and exported files are made for.
        searches: whether its figures look for each example of the split in a gallery,
            the training split: `Figures.add_gallery`.
        dense: whether an exit answers for every position of the image: heads keep the
            size of their map, and there are no `embedding_k`.
    """

    name: str = ""
    metric: str = "accuracy"
    step_metric: str = "accuracy"
    unit: str = "%"
    further_units: typing.ClassVar[Mapping[str, str]] = {}
    probabilities: str = "softmax"
    one_class: bool = False
    dense: bool = False
    searches: bool = False

    def get_config(self) -> dict[str, typing.Any]:
        """Returns the constructor's arguments, as files keep them."""
        return {}

    # ---- networks

    def num_outputs(self, num_classes: int) -> int:
        """Returns the width of an exit for a data set with so many classes."""
        return num_classes

    @abc.abstractmethod
    def check_outputs(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuses exits that cannot answer the task.

        Args:
            name: name of the network, for the message.
            shape: shape of an exit's output.

        Raises:
            UserError: says what the network must be built with.
        """

    def pool(self, x: Tensor, k: int) -> Tensor:
        """What the last layer of exit k reads: `embedding_k`, see `heads.pool`.

        Where the task is dense nothing is pooled: an exit reads the map.
        """
        return x if self.dense else heads.pool(x, k)

    def classify(
        self,
        x: Tensor,
        k: int,
        width: int,
        dropout: float = 0.0,
        image_size: tuple[int | None, ...] = (),
    ) -> Tensor:
        """`exit_k` in float32; of a vector see `heads.classify`.

        Args:
            x: of `pool`.
            k: int, number of the exit.
            width: of `num_outputs`.
            dropout: float in [0, 1), rate before the last layer.
            image_size: (int, int), height and width of the network's images; None each
                where it takes any.
        """
        return heads.classify(x, k, width, dropout)

    # ---- labels

    @abc.abstractmethod
    def label_spec(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
        """Returns shape and dtype of one example's label as `read_label` makes it."""

    @abc.abstractmethod
    def read_label(self, label: typing.Any, shape: tuple[int, ...]) -> Tensor:
        """Returns the labels of a batch in the one form that the losses read.

        Runs on symbols; labels that it has returned pass as they are.

        Args:
            label: tensor, as a batch delivers it.
            shape: shape of an exit's output.

        Raises:
            UserError: for labels of another shape or kind.
        """

    @abc.abstractmethod
    def check_label(self, label: np.ndarray, shape: tuple[int, ...]) -> None:
        """Refuses labels by their values.

        Args:
            label: array [N, ...] that is no text and not empty; shapes that are none of
                this task are left to `read_label`.
            shape: shape of an exit's output.

        Raises:
            UserError: names the first value that is no label.
        """

    def labels_of(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Returns the labels of a data set as this task learns them.

        Args:
            labels: array [N, ...], as the data set has them.
            num_classes: int, its classes.

        Raises:
            UserError: if its labels are of another kind.
        """
        return labels

    # ---- losses

    @abc.abstractmethod
    def label_loss(self, label: Tensor, output: Tensor) -> Tensor:
        """Returns the loss of one exit against the labels, float32 [B]."""

    @abc.abstractmethod
    def imitation(self, guide: Tensor, output: Tensor, temperature: float) -> Tensor:
        """Returns the loss of one exit against another, float32 [B].

        Args:
            guide: output of a teacher's exit; no gradient flows into it.
            output: output of an exit.
            temperature: float > 0, softens both.
        """

    # ---- answers

    def vote(
        self,
        outputs: Mapping[str, typing.Any],
        kind: str = "logits",
        weights: Mapping[str, float] | None = None,
    ) -> Tensor:
        """Returns the ensemble of some exits, of the form of one exit's output.

        Args:
            outputs: dict, exit name -> output; at least one.
            kind: what it averages, "logits" or "probabilities".
            weights: dict, exit name -> float, or None for the mean.
        """
        return ensemble_scores(outputs, kind, weights)

    @abc.abstractmethod
    def quality(self, label: Tensor, output: Tensor) -> Tensor:
        """Returns `step_metric` of each example, float32 [B]."""

    @property
    def has_confidence(self) -> bool:
        """Whether positions exit early by a `confidence` of the task's own."""
        return type(self).confidence is not Task.confidence

    def confidence(self, output: Tensor) -> Tensor:
        """Returns how sure an output is at each position, float32 [B, h, w]."""
        raise UserError(f"Task {self.name!r} does not say how sure an answer is.")

    @property
    def has_panels(self) -> bool:
        """Whether answers can be looked at, by a `panels` of the task's own."""
        return type(self).panels is not Task.panels

    def panels(
        self, label: np.ndarray, outputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns pictures of the answers to one example beside its truth.

        Args:
            label: array [...], of one example.
            outputs: dict, exit name or "ensemble" -> array [...], the same.

        Returns:
            dict, name of the picture -> uint8 [H, W, 3].
        """
        return {}

    def unit_of(self, figure: str) -> str:
        """Returns the unit of one of the figures."""
        return self.further_units.get(figure, self.unit)

    def figures(self) -> Figures:
        """Returns what gathers the figures of one output over a data set."""
        return Mean(self.step_metric, self.quality)

    def fit_weights(
        self, outputs: Mapping[str, typing.Any], labels: typing.Any
    ) -> dict[str, float]:
        """Fits one weight per exit on held-out examples, where `one_class`."""
        raise UserError(f"Task {self.name!r} fits no weights of exits.")
