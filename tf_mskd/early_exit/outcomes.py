"""What every exit predicts for every example, in one table."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence

import numpy as np

from tf_mskd.early_exit import criteria
from tf_mskd.early_exit.thresholds import exit_index
from tf_mskd.models import exit_names


@dataclasses.dataclass(frozen=True)
class ExitOutcomes:
    """The K exits of a student on N examples, under fixed temperatures.

    Args:
        names: the exits, shallow to deep.
        probs: at each exit the probabilities returned there, float32 [N, classes].
        correct: bool [K, N], whether exit k predicts the label.
        macs: float64 [K], multiply-accumulates of an example that exits at exit k; the
            last are those of the full pass.
    """

    names: list[str]
    probs: list[np.ndarray]
    correct: np.ndarray
    macs: np.ndarray

    @property
    def full_accuracy(self) -> float:
        """Accuracy of the full pass, in [0, 1]."""
        return float(self.correct[-1].mean())

    def confidences(self, criterion: str) -> np.ndarray:
        """Returns the confidences at all exits but the last, float32 [K-1, N]."""
        return confidences(criterion, self.probs)

    def measure(self, criterion: str, thresholds: Sequence[float]) -> dict:
        """Measures early exits under the thresholds of all exits but the last.

        Returns:
            dict: "accuracy" in [0, 1], "mean_macs", "macs_fraction" of the full pass,
            and "exit_rates", by exit the fraction of the examples that exit there.
        """
        index = exit_index(self.confidences(criterion), thresholds)
        counts = np.bincount(index, minlength=len(self.names))
        mean_macs = float(self.macs[index].mean())
        return {
            "accuracy": float(self.correct[index, np.arange(len(index))].mean()),
            "mean_macs": mean_macs,
            "macs_fraction": mean_macs / float(self.macs[-1]),
            "exit_rates": {
                name: float(count / len(index))
                for name, count in zip(self.names, counts, strict=True)
            },
        }


def exit_outcomes(
    logits: Mapping[str, typing.Any],
    labels: typing.Any,
    macs: Mapping[str, float],
    temperatures: Mapping[str, float],
    answer: str = "ensemble",
) -> ExitOutcomes:
    """Makes the table of outcomes.

    Args:
        logits: dict, exit name -> float array [N, classes].
        labels: int array [N].
        macs: dict, exit name -> multiply-accumulates of an example that exits there.
        temperatures: dict, exit name -> float > 0.
        answer: see `criteria.answers_so_far`.

    Example:
        >>> z = {"exit_1": [[2.0, 0.0]], "exit_2": [[0.0, 3.0]]}
        >>> ones = {"exit_1": 1.0, "exit_2": 1.0}
        >>> table = exit_outcomes(z, [1], {"exit_1": 40, "exit_2": 100}, ones)
        >>> table.correct[:, 0].tolist(), table.full_accuracy
        ([False, True], 1.0)
        >>> table.measure("max_probability", [0.8])["exit_rates"]
        {'exit_1': 1.0, 'exit_2': 0.0}
    """
    names = exit_names(logits)
    probs = predictions(logits, temperatures, answer)
    correct = np.array([p.argmax(-1) == np.asarray(labels) for p in probs])
    costs = np.array([macs[name] for name in names], np.float64)
    return ExitOutcomes(names, probs, correct, costs)


def predictions(
    logits: Mapping[str, typing.Any],
    temperatures: Mapping[str, float],
    answer: str = "ensemble",
) -> list[np.ndarray]:
    """Returns the probabilities at every exit, shallow to deep: [N, classes]."""
    names = exit_names(logits)
    values = [logits[name] for name in names]
    scales = [temperatures[name] for name in names]
    return [
        np.asarray(criteria.answers_so_far(values[:k], scales[:k], answer))
        for k in range(1, len(names) + 1)
    ]


def confidences(criterion: str, probs: Sequence[np.ndarray]) -> np.ndarray:
    """Confidences at all exits but the last, float32 [K-1, N], of `predictions`."""
    early = [
        np.asarray(criteria.confidence(criterion, probs[:k]))
        for k in range(1, len(probs))
    ]
    return np.reshape(early, (len(probs) - 1, len(probs[0])))
