"""What a contrastive step needs beside its batch: examples of other classes."""

import numpy as np

from tf_mskd.utils.errors import UserError


class Partners:
    """Draws examples of other classes, as a function of seed and step alone.

    Args:
        labels: int [N], labels of the whole training split.
        ids: int64 [n], positions in use.
        seed: int >= 0.

    Raises:
        UserError: if there is one class only.
    """

    def __init__(self, labels: np.ndarray, ids: np.ndarray, seed: int):
        order = np.argsort(labels[ids], kind="stable")
        self._ids, self._seed = ids[order], seed
        self._labels = labels[self._ids]
        if self._labels[0] == self._labels[-1]:
            raise UserError(
                "Examples of other classes require at least two classes, got 1."
            )

    def largest_draw(self) -> int:
        """How many examples of other classes every example has, at least."""
        return len(self._ids) - np.bincount(self._labels).max()

    def one(self, label: np.ndarray, step: int) -> np.ndarray:
        """One position of another class per example, uniform over all of them.

        Args:
            label: int [B].
            step: int, global step.

        Returns:
            int64 [B].
        """
        start = np.searchsorted(self._labels, label, "left")
        stop = np.searchsorted(self._labels, label, "right")
        others = len(self._ids) - (stop - start)
        draw = self._generator(step, 0).integers(0, others)
        return self._ids[np.where(draw < start, draw, draw + stop - start)]

    def many(self, label: np.ndarray, step: int, count: int) -> np.ndarray:
        """Distinct positions of other classes per example.

        Each row alone is a uniform draw without replacement. The rows of a batch come
        from one shuffle, each from a place of its own, so two rows may overlap more
        than independent draws would; one shuffle a step is what makes this cheap.

        Args:
            label: int [B].
            step: int, global step.
            count: int, at most `largest_draw()`.

        Returns:
            int32 [B, count].
        """
        generator = self._generator(step, 1)
        shuffled = generator.permutation(len(self._ids))
        starts = generator.integers(0, len(self._ids), len(label))
        own = int(np.bincount(self._labels).max())
        window = np.arange(min(count + own, len(self._ids)))
        rows = np.empty((len(label), count), np.int32)
        for row, (start, wanted) in enumerate(zip(starts, label, strict=True)):
            places = shuffled[(start + window) % len(shuffled)]
            places = places[self._labels[places] != wanted][:count]
            rows[row] = self._ids[places]
        return rows

    def _generator(self, step, use):
        return np.random.default_rng([self._seed, step, use])
