"""Runs that differ in the seed alone, as one run: means and standard deviations."""

import dataclasses
import os
import pathlib
import statistics
from collections.abc import Sequence

from tf_mskd.runs.comparison import ComparedRun
from tf_mskd.runs.config import differing
from tf_mskd.runs.flags import read_flagfile
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.run_paths import RunPaths


def group_seeds(
    runs: dict[str, ComparedRun], folders: Sequence[pathlib.Path]
) -> dict[str, ComparedRun]:
    """Joins the runs whose flags differ in --seed alone.

    Args:
        runs: see `comparison.read_runs`.
        folders: the folders of the runs, in the same order.

    Returns:
        dict, name -> `ComparedRun` of the means, with `seeds` and `deviations`. The
        name of several is theirs, with "*" for what differs. Runs that are the only
        ones of their kind stay as they are.

    Raises:
        UserError: if the flags of a run cannot be read, or two runs have one seed.
    """
    groups: list[list[tuple]] = []
    for (name, run), folder in zip(runs.items(), folders, strict=True):
        config = read_flagfile(str(RunPaths(folder).flags))
        member = name, run, config
        for group in groups:
            first = dataclasses.replace(group[0][2], seed=config.seed)
            if not differing(first, config):
                _check_seed(group, member)
                group.append(member)
                break
        else:
            groups.append([member])
    found: dict[str, ComparedRun] = {}
    for group in groups:
        names = [name for name, _, _ in group]
        name = _common(names)
        name = ", ".join(names) if name in ("*", *runs, *found) else name
        found[name if len(names) > 1 else names[0]] = _mean(
            [run for _, run, _ in group]
        )
    return found


def _check_seed(group, member):
    name, _, config = member
    for other, _, known in group:
        if known.seed == config.seed:
            raise UserError(
                f"{other} and {name} are runs of one recipe with the same "
                f"--seed={known.seed}: leave one of them out."
            )


def _common(names):
    """The names as one, with "*" for what differs.

    >>> _common(["runs/seed0/kd", "runs/seed1/kd"])
    'runs/seed*/kd'
    """
    start = os.path.commonprefix(names)
    ends = [name[len(start) :][::-1] for name in names]
    return f"{start}*{os.path.commonprefix(ends)[::-1]}"


def _mean(runs):
    if len(runs) == 1:
        return runs[0]
    tables = [run.result.test for run in runs]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    columns = {name: [table[name] for table in tables] for name in names}
    result = dataclasses.replace(
        runs[0].result,
        seconds=statistics.fmean(run.result.seconds for run in runs),
        test={name: statistics.fmean(values) for name, values in columns.items()},
    )
    epochs = zip(*(run.history for run in runs), strict=True)
    figure = runs[0].figure
    return ComparedRun(
        result,
        [
            {
                "epoch": logs[0]["epoch"],
                figure: statistics.fmean(log[figure] for log in logs),
            }
            for logs in epochs
        ],
        seeds=len(runs),
        deviations={name: statistics.stdev(values) for name, values in columns.items()},
    )
