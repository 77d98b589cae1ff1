"""What training costs beside the student alone, from the logged seconds."""

import dataclasses
import itertools
import statistics

from tf_mskd.runs.comparison import ComparedRun, find_row
from tf_mskd.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainingCost:
    """Training times of some rows as multiples of that of one of them.

    Args:
        of: name of the row that counts as 1.
        ratios: name -> multiple; rows without seconds in their logs are missing.
    """

    of: str
    ratios: dict[str, float]


def training_seconds(history: list[dict]) -> float | None:
    """Seconds of training, as if the graphs had been there from the start.

    Of each phase the median of its epochs times their number, without its first epoch,
    which builds the graph; a phase of one epoch counts as it is. The logged seconds are
    those of the training steps: without validation, checkpoints, and other runs.

    Args:
        history: the logs of the epochs.

    Returns:
        float, or None where an epoch has logged no seconds.

    Example:
        >>> epochs = [{"phase": 1, "seconds": s} for s in (9.0, 1.0, 2.0, 1.0)]
        >>> training_seconds(epochs + [{"phase": 2, "seconds": 3.0}])
        7.0
    """
    total = 0.0
    for _, phase in itertools.groupby(history, lambda epoch: epoch.get("phase")):
        logged = [epoch.get("seconds") for epoch in phase]
        seconds = [value for value in logged if isinstance(value, int | float)]
        if len(seconds) < len(logged):
            return None
        total += len(seconds) * statistics.median(seconds[1:] or seconds)
    return total


def training_cost(runs: dict[str, ComparedRun], of: str = "") -> TrainingCost | None:
    """Compares the training times of rows.

    Args:
        runs: see `comparison.read_runs` and `seeds.group_seeds`.
        of: name of the row that counts as 1; "" for the student alone, see
            `plain_student`.

    Returns:
        `TrainingCost`, or None where no row is named and none is the student alone or
        its logs hold no seconds.

    Raises:
        UserError: if there is no such row, or it has logged no time.
    """
    seconds = {name: _mean_seconds(run) for name, run in runs.items()}
    name = find_row(runs, of, "--cost_of") if of else plain_student(runs)
    unit = seconds[name] if name else None
    if of and not unit:
        raise UserError(f"--cost_of={of}: the logs of {name} hold no seconds.")
    if not name or not unit:
        return None
    return TrainingCost(name, {n: s / unit for n, s in seconds.items() if s})


def plain_student(runs: dict[str, ComparedRun]) -> str | None:
    """Name of the row of a student that learns from labels alone, if one is sure.

    Its network is that of a row with another method, and no larger; of several the one
    with the fewest exits.
    """
    plain = [name for name, run in runs.items() if run.result.method == "ce"]
    others = [run.result for run in runs.values() if run.result.method != "ce"]
    students = [
        name
        for name in plain
        if any(
            runs[name].result.model == other.model
            and runs[name].result.params <= other.params
            for other in others
        )
    ]
    fewest = min((len(runs[name].exits) for name in students), default=0)
    students = [name for name in students if len(runs[name].exits) == fewest]
    return students[0] if len(students) == 1 else None


def _mean_seconds(run):
    seconds = [training_seconds(single.history) for single in run.single]
    return None if None in seconds else statistics.fmean(seconds)
