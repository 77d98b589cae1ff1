"""Thresholds of the early exits, searched on held-out examples."""

from typing import NamedTuple

import numpy as np

NEVER = 2.0  # a threshold that no confidence reaches
# Thresholds tried per exit, evenly spread over the examples. More fit the noise: on
# halves of CIFAR-100's test images, 50 and 100 lost more on the other half than 20.
CANDIDATES = 20
PRICES = np.geomspace(0.1, 1000.0, 25)  # points of accuracy one full pass may cost
ROUNDS = 10  # over all exits, at most


class Goal(NamedTuple):
    """What a setting of thresholds shall reach on the held-out examples.

    Args:
        kind: "max_accuracy_drop" (then the least MACs win) or "target_macs" (then the
            highest accuracy wins).
        value: float; points of accuracy below the full pass, with the standard error
            of their estimate; or mean MACs as a share of the full pass.
    """

    kind: str
    value: float


class Setting(NamedTuple):
    """A setting of thresholds, and what it does on the held-out examples.

    Args:
        accuracy: float, percent.
        share: float, mean MACs as a share of those of the full pass.
        error: float, points; the standard error of the accuracy's difference to the
            full pass, sqrt((mean d^2 - (mean d)^2) / N), d = right - right in full.
        thresholds: tuple of float, of all exits but the last.
    """

    accuracy: float
    share: float
    error: float
    thresholds: tuple


def exits_taken(confidences, thresholds):
    """Says where every example leaves.

    Args:
        confidences: float [K-1, N], of all exits but the last.
        thresholds: float [K-1].

    Returns:
        int [N] in 0..K-1: the first exit whose confidence is at least its threshold,
        compared in float32 as in a graph; the last exit takes the rest.

    Example:
        >>> exits_taken([[0.9, 0.5, 0.5], [0.9, 0.8, 0.5]], [0.7, 0.7]).tolist()
        [0, 1, 2]
    """
    return _leaves(confidences, thresholds).argmax(0)


def _leaves(confidences, thresholds):
    thresholds = np.asarray(thresholds, np.float32)[:, None]
    early = np.asarray(confidences, np.float32) >= thresholds
    return np.concatenate([early, np.ones_like(early[:1])])


def fit(confidences, right, macs, goals):
    """Searches one setting of thresholds for each goal.

    A scan of thresholds shared by all exits gives the first settings. From the best of
    them a search along one exit's threshold after the other, in turn, climbs accuracy
    minus price times MACs, for each of several prices. From the best setting found so
    far another one climbs towards each goal. Nothing is random.

    Args:
        confidences: float32 [K-1, N], of all exits but the last.
        right: bool [K, N], whether exit k's answer is right.
        macs: [K], multiply-accumulates of an example that leaves at exit k.
        goals: list of `Goal`. A later one may use what was found for those before, so
            budgets that ascend give accuracies that do not fall.

    Returns:
        list of `Setting`, one per goal; the nearest where a goal cannot be reached.
    """
    held_out = _HeldOut(confidences, right, macs)
    shared = np.unique(np.concatenate(held_out.candidates))
    found = [held_out.setting([t] * len(held_out.candidates)) for t in shared]
    for price in PRICES:

        def rank(accuracy, share, error, price=price):
            return (price * share - accuracy,)

        found.append(_climb(held_out, _best(found, rank), rank))
    settings = []
    for goal in goals:
        rank = ranking(goal, 100 * held_out.right[-1].mean())
        found.append(_climb(held_out, _best(found, rank), rank))
        settings.append(_best(found, rank))
    return settings


def ranking(goal, full_accuracy):
    """The function (accuracies, shares, errors) -> keys, least first, of a goal.

    The first key is by how much the goal is missed, 0 where it is reached. A drop
    counts with its standard error: thresholds are chosen because they did well on the
    held-out examples, partly by luck, and lose more on others.
    """
    if goal.kind == "max_accuracy_drop":
        return lambda accuracy, share, error: (
            _missed(full_accuracy - accuracy + error, goal.value),
            share,
            -accuracy,
        )
    return lambda accuracy, share, error: (_missed(share, goal.value), -accuracy, share)


def _missed(value, limit):
    excess = np.asarray(value) - limit
    return np.where(excess > 1e-9, excess, 0.0)  # rounding is no miss


def _best(settings, rank):
    measured = np.array([s[:3] for s in settings]).T
    return settings[np.lexsort(rank(*measured)[::-1])[0]]


def _climb(held_out, start, rank):
    """Moves one threshold after the other to its best place, until none moves."""
    thresholds = list(start.thresholds)
    for _ in range(ROUNDS):
        before = list(thresholds)
        for k, candidates in enumerate(held_out.candidates):
            keys = rank(*held_out.along(thresholds, k))
            thresholds[k] = candidates[np.lexsort(keys[::-1])[0]]
        if thresholds == before:
            break
    return held_out.setting(thresholds)


class _HeldOut:
    """The held-out examples: what any setting, or a line of settings, does on them."""

    def __init__(self, confidences, right, macs):
        self.confidences, self.right = np.asarray(confidences), np.asarray(right)
        self.macs = np.asarray(macs, np.float64) / macs[-1]
        self.candidates = [_candidates(c) for c in self.confidences]
        # how many candidates let each example leave
        self._passed = [
            np.searchsorted(t, c, side="right")
            for t, c in zip(self.candidates, self.confidences, strict=True)
        ]
        self._rows = np.arange(self.right.shape[1])
        changed = self.right != self.right[-1]
        macs = np.repeat(self.macs[:, None], len(self._rows), 1)
        self._values = [100.0 * self.right, macs, changed.astype(np.float64)]

    def setting(self, thresholds):
        taken = exits_taken(self.confidences, thresholds)
        means = [value[taken, self._rows].mean() for value in self._values]
        thresholds = tuple(float(t) for t in thresholds)
        return Setting(*map(float, self._measured(*means)), thresholds)

    def _measured(self, accuracy, share, changed):
        mean = accuracy / 100 - self.right[-1].mean()
        variance = np.maximum(changed - mean**2, 0.0) / len(self._rows)
        return accuracy, share, 100 * np.sqrt(variance)

    def along(self, thresholds, k):
        """Accuracies, shares and errors for all candidates at exit k, others fixed."""
        leaves = _leaves(self.confidences, thresholds)
        gone = leaves[:k].any(0)
        later = k + 1 + leaves[k + 1 :].argmax(0)
        without = np.where(gone, leaves.argmax(0), later)  # where k lets none leave
        changed = np.where(gone, without, k)
        means = []
        for value in self._values:
            change = value[changed, self._rows] - value[without, self._rows]
            by_passed = np.bincount(
                self._passed[k], change, minlength=len(self.candidates[k]) + 1
            )
            tails = by_passed[::-1].cumsum()[::-1][1:]  # all that pass candidate j
            means.append((value[without, self._rows].sum() + tails) / len(gone))
        return self._measured(*means)


def _candidates(confidences):
    """float32, ascending: all leave, the middles between neighbours, none leaves."""
    values = np.unique(confidences)
    if len(values) > CANDIDATES:
        ranks = np.linspace(0, len(confidences) - 1, CANDIDATES).round().astype(int)
        values = np.unique(np.sort(confidences)[ranks])
    low, high = values[:-1], values[1:]
    middle = ((low.astype(np.float64) + high) / 2).astype(np.float32)
    middle = np.where(middle > low, middle, high)  # neighbours in float32 have none
    return np.concatenate([[0.0], middle, [NEVER]]).astype(np.float32)
