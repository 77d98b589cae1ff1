"""What training and evaluation measure: bare terms, and how good each exit is."""

import typing

import keras

from tf_mskd.tasks import Task
from tf_mskd.training.compiled import ExitMetric
from tf_mskd.utils.private import direction_of


class ExitMetrics:
    """The running means of an epoch.

    Args:
        task: `Task`.
        terms: names "term/output" of the loss terms.
        exits: names of the exits, shallow to deep.
        ensemble: "logits" or "probabilities", what the ensemble averages.

    Attributes:
        terms: dict, "term/output" -> `keras.metrics.Mean`.
        qualities: dict, exit name or "ensemble" -> `keras.metrics.Mean`, of
            `Task.quality`.
        further: list of `ExitMetric`, those that `compile` was given.
    """

    def __init__(
        self, task: Task, terms: tuple[str, ...], exits: list[str], ensemble: str
    ):
        mean = keras.metrics.Mean
        self._task, self._exits, self._ensemble = task, exits, ensemble
        self.terms = {name: mean(name=name) for name in terms}
        names = [*exits, "ensemble"]
        step_metric = task.step_metric
        self.qualities = {name: mean(name=f"{name}_{step_metric}") for name in names}
        self.further: list[ExitMetric] = []

    def mode_of(self, monitor: str) -> str:
        """Returns how a callback compares the values of a log: "max", "min" or "auto".

        Args:
            monitor: str, a name in the logs, with or without "val_".
        """
        name = monitor.removeprefix("val_")
        if name in self.terms:
            return "min"
        if name in {metric.name for metric in self.qualities.values()}:
            return "max"
        found = {m.metric.name: direction_of(m.metric) for m in self.further}
        return {"up": "max", "down": "min"}.get(found.get(name) or "", "auto")

    def update_terms(
        self, terms: dict[str, typing.Any], sample_weight: typing.Any = None
    ) -> None:
        """Adds the terms of a step; one over the whole batch counts once.

        Args:
            terms: dict, "term/output" -> float [B] or scalar.
            sample_weight: float [B] or None.
        """
        for name, value in terms.items():
            weight = sample_weight if len(value.shape) else None
            self.terms[name].update_state(value, weight)

    def update_qualities(
        self,
        outputs: dict[str, typing.Any],
        label: typing.Any,
        sample_weight: typing.Any = None,
    ) -> None:
        """Adds what the exits and their ensemble predict.

        Args:
            outputs: dict, exit name -> output; other outputs are left alone.
            label: of `Task.read_label`.
            sample_weight: float [B] or None.
        """
        exits = {name: outputs[name] for name in self._exits if name in outputs}
        answers = {**exits, "ensemble": self._task.vote(exits, self._ensemble)}
        for name, value in answers.items():
            quality = self._task.quality(label, value)
            self.qualities[name].update_state(quality, sample_weight)
        for name, metric, weighted in self.further:
            if name in answers:
                weight = sample_weight if weighted else None
                metric.update_state(label, answers[name], weight)

    def results(self, terms: list[str], exits: list[str]) -> dict[str, typing.Any]:
        """Returns the means of these terms, these exits and the ensemble by name."""
        metrics = {name: self.terms[name] for name in terms}
        for name in (*exits, "ensemble"):
            metric = self.qualities[name]
            metrics[metric.name] = metric
        for name, metric, _ in self.further:
            if name in exits or name == "ensemble":
                metrics[metric.name] = metric
        return {name: metric.result() for name, metric in metrics.items()}
