"""Thresholds of the early exits, searched on held-out examples."""

import typing
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

NEVER = 2.0  # a threshold above every confidence
# Thresholds tried per exit, evenly spread over the examples. More fit the noise: on
# halves of CIFAR-100's test images, 50 and 100 lost more on the other half than 20.
CANDIDATES = 20
BLOCK = 4  # exits whose thresholds are searched together: 22^4 settings
ROUNDS = 10  # over all blocks, at most


class Goal(NamedTuple):
    """What a setting of thresholds must reach on the held-out examples.

    Args:
        kind: "max_accuracy_drop" (then the least MACs win) or "target_macs" (then the
            highest accuracy wins).
        value: float; the accuracy that may be lost against the full pass, as a fraction
            and with the standard error of its estimate; or mean MACs as a fraction of
            the full pass.
    """

    kind: str
    value: float


class Setting(NamedTuple):
    """A setting of thresholds, and what it does on the held-out examples.

    Args:
        accuracy: float in [0, 1].
        macs_fraction: float, mean MACs as a fraction of those of the full pass.
        error: float, the standard error of the accuracy's difference to the full pass,
            sqrt((mean d^2 - (mean d)^2) / N), d = correct early - correct in full.
        thresholds: tuple of float, of all exits but the last.
    """

    accuracy: float
    macs_fraction: float
    error: float
    thresholds: tuple[float, ...]


def exit_index(confidences: typing.Any, thresholds: typing.Any) -> np.ndarray:
    """Returns the index of the exit that each example takes.

    Args:
        confidences: float [K-1, N], of all exits but the last.
        thresholds: float [K-1], or [K-1, N] if each example has its own.

    Returns:
        int [N] in 0..K-1: the first exit whose confidence is at least its threshold,
        compared in float32 as in a graph; the last exit takes the rest.

    Example:
        >>> exit_index([[0.9, 0.5, 0.5], [0.9, 0.8, 0.5]], [0.7, 0.7]).tolist()
        [0, 1, 2]
    """
    return _may_exit(confidences, thresholds).argmax(0)


def _may_exit(confidences, thresholds):
    confidences = np.asarray(confidences, np.float32)
    thresholds = np.asarray(thresholds, np.float32)
    if thresholds.ndim == 1:
        thresholds = thresholds[:, None]
    last = np.ones((1, confidences.shape[1]), bool)
    return np.concatenate([confidences >= thresholds, last])


def fit(
    confidences: np.ndarray,
    correct: np.ndarray,
    macs: Sequence[float] | np.ndarray,
    goals: Sequence[Goal],
) -> list[Setting]:
    """Searches one setting of thresholds for each goal.

    All settings of the candidates of four exits are tried at once; up to five exits
    that is every setting. With more exits the search starts from the best setting so
    far (at first, of those with one threshold for all), and one block of four after
    the other, which overlap by two, moves to its best, until none moves. Nothing is
    random.

    Args:
        confidences: float32 [K-1, N] >= 0, of all exits but the last.
        correct: bool [K, N], whether exit k predicts the label.
        macs: [K], multiply-accumulates of an example that exits at exit k.
        goals: list of `Goal`. A later one may use what was found for those before, so
            budgets that ascend give accuracies that do not fall.

    Returns:
        list of `Setting`, one per goal; the nearest where a goal cannot be reached.
    """
    held_out = _HeldOut(confidences, correct, macs)
    shared = np.unique(np.concatenate(held_out.candidates))
    found = [held_out.setting([t] * len(held_out.candidates)) for t in shared]
    settings = []
    for goal in goals:
        rank = ranking(goal, held_out.correct[-1].mean())
        found.append(_climb(held_out, _best(found, rank), rank))
        settings.append(_best(found, rank))
    return settings


def ranking(goal: Goal, full_accuracy: float) -> Callable[..., tuple]:
    """The function (accuracies, MACs, errors) -> keys, least first, of a goal.

    The first key is by how much the goal is missed, 0 where it is reached. A drop
    counts with its standard error: thresholds are chosen because they did well on the
    held-out examples, partly by luck, and lose more on others.
    """
    if goal.kind == "max_accuracy_drop":
        return lambda accuracy, fraction, error: (
            _missed(full_accuracy - accuracy + error, goal.value),
            fraction,
            -accuracy,
        )
    return lambda accuracy, fraction, error: (
        _missed(fraction, goal.value),
        -accuracy,
        fraction,
    )


def _missed(value, limit):
    excess = np.asarray(value) - limit
    return np.where(excess > 1e-9, excess, 0.0)  # rounding is no miss


def _best(settings, rank):
    return settings[_first(rank(*np.array([s[:3] for s in settings]).T))]


def _first(keys):
    """The place of the least keys: the first key decides, then the second, ..."""
    places = np.arange(len(keys[0]))
    for key in keys:
        places = places[key[places] == key[places].min()]
    return places[0]


def _climb(held_out, start, rank):
    """Moves one block of thresholds after the other to its best place."""
    thresholds, exits = list(start.thresholds), range(len(held_out.candidates))
    last = max(len(exits) - BLOCK, 0)
    blocks = [exits[k : k + BLOCK] for k in [*range(0, last, BLOCK // 2), last]]
    for _ in range(ROUNDS if len(blocks) > 1 else 1):
        before = list(thresholds)
        for block in blocks:
            candidates = [held_out.candidates[k] for k in block]
            place = _first(rank(*held_out.grid(thresholds, block)))
            places = np.unravel_index(place, [len(c) for c in candidates])
            for k, values, index in zip(block, candidates, places, strict=True):
                thresholds[k] = values[index]
        if thresholds == before:
            break
    return held_out.setting(thresholds)


class _HeldOut:
    """The held-out examples: what any setting, or a grid of settings, does on them."""

    def __init__(self, confidences, correct, macs):
        self.confidences, self.correct = np.asarray(confidences), np.asarray(correct)
        self.macs = np.asarray(macs, np.float64) / macs[-1]
        self.candidates = [_candidates(c) for c in self.confidences]
        # the largest candidate at which each example exits
        self._passed = [
            np.searchsorted(t, c, side="right") - 1
            for t, c in zip(self.candidates, self.confidences, strict=True)
        ]
        self._rows = np.arange(self.correct.shape[1])
        changed = self.correct != self.correct[-1]
        macs = np.repeat(self.macs[:, None], len(self._rows), 1)
        self._values = [1.0 * self.correct, macs, 1.0 * changed]

    def setting(self, thresholds):
        index = exit_index(self.confidences, thresholds)
        means = [value[index, self._rows].mean() for value in self._values]
        thresholds = tuple(float(t) for t in thresholds)
        return Setting(*map(float, self._measured(*means)), thresholds)

    def _measured(self, accuracy, fraction, changed):
        mean = accuracy - self.correct[-1].mean()
        variance = np.maximum(changed - mean**2, 0.0) / len(self._rows)
        return accuracy, fraction, np.sqrt(variance)

    def grid(self, thresholds, block):
        """What all candidates at some exits do while the other thresholds are fixed.

        An example's exit depends on its largest passed candidate at each exit alone.
        So the examples are counted once by these (a histogram with one axis an exit),
        and cumulative sums over its axes give every setting at once: the time grows
        with the examples plus the settings, not with their product.

        Args:
            thresholds: list of float, of all exits but the last.
            block: range of exits, the axes of the grid.

        Returns:
            three float64 arrays: accuracies, MACs' fractions, errors; the grid raveled.
        """
        may_exit = _may_exit(self.confidences, thresholds)
        before = may_exit[: block.start].any(0)  # these never reach the block
        behind = block.stop + may_exit[block.stop :].argmax(0)
        # the exit of each example that exits at none of the block
        elsewhere = np.where(before, may_exit.argmax(0), behind)
        shape = [len(self.candidates[k]) for k in block]
        cells = np.ravel_multi_index([self._passed[k] for k in block], shape)[~before]
        means = []
        for value in self._values:
            rest = value[elsewhere, self._rows]
            total = rest[before].sum()
            for depth, part in enumerate([*value[block], rest]):
                sums = np.bincount(cells, part[~before], np.prod(shape))
                total = total + _exiting(sums.reshape(shape), depth)
            means.append(total.ravel() / len(before))
        return self._measured(*means)


def _exiting(sums, depth):
    """Sums over the examples that exit at one axis of a grid of thresholds.

    Args:
        sums: float [n_1, .., n_m], over the examples whose largest passed candidates
            are these.
        depth: int, the axis; m stands for exiting at none.

    Returns:
        float, by candidate on the axes up to `depth`, of size 1 on those behind it.
    """
    sums = sums.sum(tuple(range(depth + 1, sums.ndim)), keepdims=True)
    for axis in range(min(depth + 1, sums.ndim)):
        stay = sums.cumsum(axis) - sums  # those whose largest one is less
        sums = stay if axis < depth else sums.sum(axis, keepdims=True) - stay
    return sums


def _candidates(confidences):
    """float32, ascending: 0 (all exit), middles between neighbours, NEVER."""
    values = np.unique(confidences)
    if len(values) > CANDIDATES:
        ranks = np.linspace(0, len(confidences) - 1, CANDIDATES).round().astype(int)
        values = np.unique(np.sort(confidences)[ranks])
    low, high = values[:-1], values[1:]
    middle = ((low.astype(np.float64) + high) / 2).astype(np.float32)
    middle = np.where(middle > low, middle, high)  # neighbours in float32 have none
    return np.concatenate([[0.0], middle, [NEVER]]).astype(np.float32)
