"""What the exits answer on a picture: the mean of their answers on its patches."""

from collections.abc import Mapping

import numpy as np


class PictureMeans:
    """Means of outputs over the patches of each picture, gathered batch by batch.

    Example:
        >>> means = PictureMeans()
        >>> means.update({"exit_1": np.array([[1.0], [3.0]])}, np.array([0, 0]), [7, 7])
        >>> means.results()[0]["exit_1"].tolist()
        [[2.0]]
    """

    def __init__(self):
        self._sums, self._counts, self._labels = {}, {}, {}

    def __bool__(self):
        """Whether there are pictures."""
        return bool(self._counts)

    def update(
        self, outputs: Mapping[str, np.ndarray], label: np.ndarray, picture: np.ndarray
    ) -> None:
        """Adds a batch: outputs by exit and labels [n, ...], pictures' numbers [n]."""
        for row, number in enumerate(int(n) for n in picture):
            sums = self._sums.setdefault(number, dict.fromkeys(outputs, 0.0))
            for name, output in outputs.items():
                sums[name] = sums[name] + np.asarray(output[row], np.float64)
            self._counts[number] = self._counts.get(number, 0) + 1
            self._labels[number] = label[row]

    def results(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Returns (dict, exit -> float [pictures, ...]; labels [pictures, ...])."""
        names = next(iter(self._sums.values()))
        means = {
            name: np.stack([s[name] / self._counts[n] for n, s in self._sums.items()])
            for name in names
        }
        return means, np.stack([self._labels[n] for n in self._sums])
