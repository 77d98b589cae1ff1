"""Differences of two recipes, paired by seed, and what they tell."""

import dataclasses
import statistics
from collections.abc import Sequence

from tf_mskd.runs.comparison import ComparedRun, find_row
from tf_mskd.utils.errors import UserError

UNDECIDED = "not told apart"
TOO_FEW = "too few seeds"


@dataclasses.dataclass(frozen=True)
class Difference:
    """The differences of a row from another, in the figure that each answers with.

    Args:
        seeds: the seeds that both rows have, ascending; none where they share none.
        values: for each seed the row's figure minus the other's, in the unit of the
            results: fractions where that is "%".
        low, high: ends of the 95 % interval of the mean by Student's t; None for fewer
            than two seeds.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    low: float | None = None
    high: float | None = None

    @property
    def mean(self) -> float | None:
        """Mean of the differences, or None of none."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def claim(self) -> str:
        """What the interval tells: "better" or "worse" only where it excludes 0."""
        if self.low is None or self.high is None:
            return TOO_FEW
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else UNDECIDED


@dataclasses.dataclass(frozen=True)
class Paired:
    """Differences of all other rows from one.

    Args:
        against: name of that row.
        last: row -> `Difference` at the last epoch.
        best: likewise of the best epochs by validation, where both rows have them.
    """

    against: str
    last: dict[str, Difference]
    best: dict[str, Difference]


def t_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of the mean of normal values by Student's t, n - 1 degrees of freedom.

    Args:
        values: two or more numbers.
        confidence: float in (0, 1).

    Returns:
        (low, high).

    Example:
        >>> low, high = t_interval([1.0, 2.0, 3.0])  # 2 -+ 4.303 / sqrt(3)
        >>> round(low, 3), round(high, 3)
        (-0.484, 4.484)
    """
    from scipy import special

    count = len(values)
    quantile = float(special.stdtrit(count - 1, (1 + confidence) / 2))
    half = quantile * statistics.stdev(values) / count**0.5
    mean = statistics.fmean(values)
    return mean - half, mean + half


def paired_with(
    runs: dict[str, ComparedRun], against: str, common_seeds: bool = False
) -> Paired:
    """Compares every row with one of them, seed by seed.

    Args:
        runs: see `seeds.group_seeds`.
        against: name of the row.
        common_seeds: bool, pairs the seeds that both rows have; a row of fewer than two
            has no interval. Otherwise both rows need the same seeds, two or more.

    Raises:
        UserError: if there is no such row, a row lacks a seed or has fewer than two, or
            rows measure different things.
    """
    name = find_row(runs, against, "--against")
    base, others = runs[name], {n: run for n, run in runs.items() if n != name}
    if not others:
        raise UserError(f"--against={against} needs a second row to compare with it.")
    for other, run in others.items():
        _check_same_figure((name, base), (other, run))
        if not common_seeds:
            _check_seeds((name, base), (other, run))
    last = {n: _difference(base, run, "test") for n, run in others.items()}
    if all(difference.low is None for difference in last.values()):
        raise UserError(
            f"--against={against} needs two seeds or more that {name} shares with "
            "another row: train more seeds."
        )
    best = {
        n: _difference(base, run, "test_best")
        for n, run in others.items()
        if run.result.test_best and base.result.test_best
    }
    return Paired(name, last, best)


def _check_same_figure(base, other):
    (name, run), (known, first) = other, base
    for what, ours, theirs in (
        ("figure", run.result.metric, first.result.metric),
        ("data set", run.config.dataset, first.config.dataset),
    ):
        if ours != theirs:
            raise UserError(
                f"{name} and {known} cannot be compared, the {what} is {ours!r} and "
                f"{theirs!r}: leave one of them out."
            )


def _check_seeds(base, other):
    lacking = []
    for (name, run), (known, first) in ((other, base), (base, other)):
        missing = sorted(first.by_seed.keys() - run.by_seed.keys())
        if missing:
            listed = ", ".join(map(str, missing))
            plural = "s" if len(missing) > 1 else ""
            lacking.append(f"{name} lacks the seed{plural} {listed} of {known}")
    if lacking:
        raise UserError(
            f"{', '.join(lacking)}: train them, leave a row out, or pair what both "
            "have with --common_seeds."
        )


def _difference(base, run, table):
    ours, theirs = run.by_seed, base.by_seed
    seeds = tuple(seed for seed in ours if seed in theirs)
    values = tuple(
        _main(ours[seed], table) - _main(theirs[seed], table) for seed in seeds
    )
    interval = t_interval(values) if len(values) > 1 else (None, None)
    return Difference(seeds, values, *interval)


def _main(run, table):
    return getattr(run.result, table)[run.main]
