"""The figures of every exit and of their ensembles over a data set."""

import typing
from collections.abc import Mapping

import numpy as np

from tf_mskd.tasks.base import Task
from tf_mskd.tasks.ensemble import subsets
from tf_mskd.tasks.pictures import PictureMeans
from tf_mskd.utils.choices import ENSEMBLES


class Meter:
    """Measures what the exits answer, batch by batch.

    Measured are each exit by name, "ensemble" (of `kind`), the ensemble of the other
    kind ("ensemble_probabilities" or "ensemble_logits") and, with `weights`,
    "ensemble_fitted".

    Of patches whose picture is told, "picture_<main figure>" is that of the pictures,
    whose answers are the means over their patches.

    Args:
        task: `Task`.
        kind: what "ensemble" averages, "logits" or "probabilities".
        weights: dict, exit name -> float, of `Task.fit_weights`, or None.
        all_subsets: bool, also measures the ensemble of every smaller subset of two
            exits or more, such as "exit_1+exit_3".

    Example:
        >>> from tf_mskd.tasks.classification import Classification
        >>> meter = Meter(Classification())
        >>> meter.update({"exit_1": [[1.0, 0.0]], "exit_2": [[0.0, 3.0]]}, [1])
        >>> meter.main()["exit_1"], meter.main()["ensemble"]
        (0.0, 1.0)
    """

    def __init__(
        self,
        task: Task,
        kind: str = "logits",
        weights: Mapping[str, float] | None = None,
        all_subsets: bool = False,
    ):
        self.task, self._kind, self._weights = task, kind, weights
        self._all_subsets = all_subsets
        self._figures: dict[str, typing.Any] = {}  # `Figures` of the task
        self._pictures = PictureMeans()

    def update(
        self,
        outputs: Mapping[str, typing.Any],
        label: typing.Any,
        picture: typing.Any = None,
    ) -> None:
        """Adds a batch.

        Args:
            outputs: dict, exit name -> array [n, ...]; at least one.
            label: array [n, ...], as `Task.read_label` makes them.
            picture: int array [n], the number of the picture of each patch, or None.

        Raises:
            UserError: if the kind of ensemble is unknown or `outputs` is empty.
        """
        label = np.asarray(label)
        for name, output in self._answers(outputs).items():
            figures = self._figures.setdefault(name, self.task.figures())
            figures.update(label, np.asarray(output))
        if picture is not None:
            self._pictures.update(outputs, label, picture)

    def add_gallery(self, outputs: Mapping[str, typing.Any], label: typing.Any) -> None:
        """Adds a batch of the images in which a task searches; as `update`."""
        label = np.asarray(label)
        for name, output in self._answers(outputs).items():
            figures = self._figures.setdefault(name, self.task.figures())
            figures.add_gallery(label, np.asarray(output))

    def add_teacher_gallery(self, outputs: Mapping[str, typing.Any]) -> None:
        """Adds the teacher's answers about the same images, in the same order.

        Their vote is searched by every exit and ensemble, beside its own answers.

        Args:
            outputs: dict, exit name of the teacher -> array [n, ...]; at least one.
        """
        vote = np.asarray(self.task.vote(outputs, self._kind))
        for figures in self._figures.values():
            figures.add_teacher_gallery(vote)

    def _answers(self, outputs):
        vote, answers = self.task.vote, dict(outputs)
        answers["ensemble"] = vote(outputs, self._kind)
        for other in ENSEMBLES:
            if other != self._kind:
                answers[f"ensemble_{other}"] = vote(outputs, other)
        if self._weights:
            answers["ensemble_fitted"] = vote(outputs, "logits", self._weights)
        if self._all_subsets:
            for names in subsets(list(outputs)):
                if 1 < len(names) < len(outputs):
                    chosen = {name: outputs[name] for name in names}
                    answers["+".join(names)] = vote(chosen, self._kind)
        return answers

    def main(self) -> dict[str, float]:
        """Returns the main figure of every output."""
        return self.results()[self.task.metric]

    def results(self) -> dict[str, dict[str, float]]:
        """Returns figure -> {output: value}, the main figure first."""
        found: dict[str, dict[str, float]] = {self.task.metric: {}}
        for name, figures in self._figures.items():
            for figure, value in figures.results().items():
                found.setdefault(figure, {})[name] = value
        if self._pictures:
            whole = Meter(self.task, self._kind, self._weights, self._all_subsets)
            whole.update(*self._pictures.results())
            found[f"picture_{self.task.metric}"] = whole.main()
        return found


def validation_logs(meter: Meter) -> dict[str, float]:
    """Names the figures of a meter for the log: "val_exit_1_accuracy", ..."""
    return {
        f"val_{name}_{figure}": value
        for figure, table in meter.results().items()
        for name, value in table.items()
    }
