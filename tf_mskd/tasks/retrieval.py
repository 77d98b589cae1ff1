"""Figures of a search by Hamming distance: average precision of the nearest images."""

import numpy as np

from tf_mskd.tasks.figures import SearchFigures
from tf_mskd.utils.errors import UserError

FEWEST = 8  # bits of a shortened code that is measured


def nearest(queries: np.ndarray, gallery: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k codes nearest to each query by Hamming distance.

    Of equal distances the first position comes first.

    Args:
        queries: bool [Q, bits].
        gallery: bool [N, bits].
        k: int > 0; all of the gallery, if it has fewer.

    Returns:
        int [Q, min(k, N)].

    Example:
        >>> code = np.array([[True, True], [False, True], [True, True]])
        >>> nearest(code[:1], code, 3).tolist()
        [[0, 2, 1]]
    """
    signs = [2.0 * codes.astype(np.float32) - 1.0 for codes in (queries, gallery)]
    bits = queries.shape[1]
    kind = np.uint8 if bits < 256 else np.uint16  # numpy sorts these in linear time
    found = []
    for first in range(0, len(queries), 256):  # rows of distances that fit in memory
        agreement = signs[0][first : first + 256] @ signs[1].T
        distance = ((bits - agreement) / 2).astype(kind)
        found.append(np.argsort(distance, axis=1, kind="stable")[:, :k])
    return np.concatenate(found)


def average_precision(hits: np.ndarray) -> np.ndarray:
    """Mean of the precision at each hit of a ranking; 0 without a hit.

    Args:
        hits: bool [Q, k], nearest first.

    Returns:
        float64 [Q], in [0, 1].

    Example:
        >>> average_precision(np.array([[True, False, True]])).round(4).tolist()
        [0.8333]
    """
    rank = np.arange(1, hits.shape[1] + 1)
    precision = np.cumsum(hits, axis=1) / rank
    return (precision * hits).sum(1) / np.maximum(hits.sum(1), 1)


class Retrieval(SearchFigures):
    """The search of every example in a gallery, relevant where the labels agree.

    Keeps a bit of each code. Figures: "map_at_k", the mean of `average_precision` over
    the k nearest; "precision_at_k", the part of them that is relevant; "map_16_bits",
    ..., map_at_k of the first 8, 16, 32, ... bits of longer codes; and with the
    teacher's codes of the gallery "asymmetric_map_at_k", searched by the student's.

    Args:
        k: int > 0.
    """

    def __init__(self, k: int):
        self._k = k
        self._queries: list[np.ndarray] = []
        self._query_labels: list[np.ndarray] = []
        self._gallery: list[np.ndarray] = []
        self._gallery_labels: list[np.ndarray] = []
        self._teacher: list[np.ndarray] = []

    def update(self, label, output):
        """Adds a batch of queries."""
        self._query_labels.append(label)
        self._queries.append(output >= 0)

    def add_gallery(self, label, output):
        """Adds a batch of the gallery."""
        self._gallery_labels.append(label)
        self._gallery.append(output >= 0)

    def add_teacher_gallery(self, output):
        """Adds the teacher's codes of the gallery."""
        self._teacher.append(output >= 0)

    def results(self):
        """Returns the figures, see the class."""
        if not self._gallery:
            raise UserError(
                "A search needs a gallery, images to look in: measure with "
                "Meter.add_gallery, as a run does with its training split."
            )
        queries, gallery = map(np.concatenate, (self._queries, self._gallery))
        hits = self._hits(queries, gallery)
        found = {"map_at_k": float(average_precision(hits).mean())}
        if self._teacher:
            across = self._hits(queries, np.concatenate(self._teacher))
            found["asymmetric_map_at_k"] = float(average_precision(across).mean())
        found["precision_at_k"] = float(hits.mean())
        bits = FEWEST
        while bits < queries.shape[1]:
            hits = self._hits(queries[:, :bits], gallery[:, :bits])
            found[f"map_{bits}_bits"] = float(average_precision(hits).mean())
            bits *= 2
        return found

    def _hits(self, queries, gallery):
        order = nearest(queries, gallery, self._k)
        labels = np.concatenate(self._gallery_labels)
        return labels[order] == np.concatenate(self._query_labels)[:, None]
