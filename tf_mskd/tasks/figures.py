"""Figures of one output over a data set, gathered batch by batch."""

import abc
from collections.abc import Callable

import numpy as np

from tf_mskd.utils.types import Tensor


class Figures(abc.ABC):
    """What is measured of one output; holds no more than it needs."""

    @abc.abstractmethod
    def update(self, label: np.ndarray, output: np.ndarray) -> None:
        """Adds a batch: labels [n, ...] and outputs [n, ...]."""

    @abc.abstractmethod
    def results(self) -> dict[str, float]:
        """Returns the figures by name, the main one first; NaN without examples."""


class SearchFigures(Figures):
    """Figures of a search among a gallery of further images, see `Task.searches`."""

    @abc.abstractmethod
    def add_gallery(self, label: np.ndarray, output: np.ndarray) -> None:
        """Adds a batch of what is searched: labels [n, ...], outputs [n, ...]."""

    @abc.abstractmethod
    def add_teacher_gallery(self, output: np.ndarray) -> None:
        """Adds the teacher's answers [n, ...] about the same images, in order."""


class Mean(Figures):
    """The mean of one figure of each example.

    Args:
        name: its name.
        quality: function of (labels [n, ...], outputs [n, ...]) -> float [n].
    """

    def __init__(self, name: str, quality: Callable[[Tensor, Tensor], Tensor]):
        self._name, self._quality = name, quality
        self._total, self._count = 0.0, 0

    def update(self, label, output):
        """Adds a batch."""
        quality = np.asarray(self._quality(label, output))  # of any backend
        self._total += float(np.sum(quality, dtype=np.float64))
        self._count += len(label)

    def results(self):
        """Returns {name: mean}."""
        return {self._name: self._total / self._count if self._count else np.nan}


class Scores(Figures):
    """Figures of all examples at once, whose scores it keeps.

    Args:
        beside: `Figures` that are measured too.
    """

    def __init__(self, beside: Figures):
        self._beside = beside
        self._labels: list[np.ndarray] = []
        self._outputs: list[np.ndarray] = []

    def update(self, label, output):
        """Adds a batch; yes is a label above 0.5."""
        self._beside.update(label, output)
        self._labels.append(label > 0.5)
        self._outputs.append(np.asarray(output, np.float32))

    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns bool [N, ...], whether the answer is yes, and float32 [N, ...]."""
        return np.concatenate(self._labels), np.concatenate(self._outputs)
