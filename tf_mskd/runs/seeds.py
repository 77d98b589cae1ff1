"""Runs that differ in the seed alone, as one: means, and the single runs in it."""

import dataclasses
import os
import re
import statistics

from tf_mskd.runs.comparison import ComparedRun
from tf_mskd.runs.config import differing
from tf_mskd.runs.flags import read_flagfile
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.run_paths import RunPaths


def group_seeds(runs: dict[str, ComparedRun]) -> dict[str, ComparedRun]:
    """Joins the runs of one recipe: their flags differ in --seed and folders alone.

    A run with --teacher_cache and one of as many views without it are of one recipe.

    Args:
        runs: see `comparison.read_runs`.

    Returns:
        dict, name -> `ComparedRun` of the means, with its `runs` by seed. The name of
        several is theirs, with "*" for what differs. Runs that are the only ones of
        their kind stay as they are, each with its `config`.

    Raises:
        UserError: if the flags of a run cannot be read, two runs of a recipe have one
            seed, or two runs that differ by name in the seed alone differ in other
            flags.
    """
    groups: list[dict[str, ComparedRun]] = []
    for name, run in runs.items():
        config = read_flagfile(str(RunPaths(run.folder).flags))
        run = dataclasses.replace(run, config=config)
        group = next((g for g in groups if not _differing(g, run)), None)
        if group is None:
            _check_recipe(groups, name, run)
            groups.append(group := {})
        _check_seed(group, name, run)
        group[name] = run
    found: dict[str, ComparedRun] = {}
    for group in groups:
        name = _common(list(group))
        if name in ("*", *runs, *found) and len(group) > 1:
            name = ", ".join(group)
        found[name] = _mean(group)
    return found


def _differing(group, run):
    """The flags beside the seed in which a run differs from those of a group.

    Where the teacher's outputs lie is no part of a recipe.
    """
    first = next(iter(group.values())).config
    found = differing(dataclasses.replace(first, seed=run.config.seed), run.config)
    return [text for text in found if not text.startswith("--teacher_cache ")]


def _check_recipe(groups, name, run):
    stem = _without_seed(name, run)
    for group in groups:
        for other, known in group.items():
            if stem and stem == _without_seed(other, known):
                raise UserError(
                    f"{other} and {name} are one recipe by their names, but differ in "
                    f"{'; '.join(_differing(group, run))}: rename one, or leave it out."
                )


def _without_seed(name, run):
    """The name without the run's seed in it, or "" where its name holds none.

    "kd_3" and "seed3/kd" hold the seed 3.
    """
    seed = run.config.seed
    stem = re.sub(rf"(seed[_=-]?|[_-](?=\d+$))0*{seed}(?!\d)", r"\1*", name)
    return stem if stem != name else ""


def _check_seed(group, name, run):
    for other, known in group.items():
        if known.config.seed == run.config.seed:
            raise UserError(
                f"{other} and {name} are runs of one recipe with the same "
                f"--seed={run.config.seed}: leave one of them out."
            )


def _common(names):
    """The names as one, with "*" for what differs.

    >>> _common(["runs/seed0/kd", "runs/seed1/kd"]), _common(["kd"])
    ('runs/seed*/kd', 'kd')
    """
    if len(names) == 1:
        return names[0]
    start = os.path.commonprefix(names)
    ends = [name[len(start) :][::-1] for name in names]
    return f"{start}*{os.path.commonprefix(ends)[::-1]}"


def _mean(group):
    runs = sorted(group.values(), key=lambda run: run.config.seed)
    if len(runs) == 1:
        return runs[0]
    first = runs[0]
    result = dataclasses.replace(
        first.result,
        seconds=statistics.fmean(run.result.seconds for run in runs),
        test=_mean_table([run.result.test for run in runs]),
        test_best=_mean_table([run.result.test_best or {} for run in runs]) or None,
    )
    lengths = {name: len(run.history) for name, run in group.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"Runs of one recipe have logs of other epochs: {told}.")
    history = [
        {
            "epoch": logs[0]["epoch"],
            first.figure: statistics.fmean(log[first.figure] for log in logs),
        }
        for logs in zip(*(run.history for run in runs), strict=True)
    ]
    return dataclasses.replace(first, result=result, history=history, runs=tuple(runs))


def _mean_table(tables):
    """The means of the figures that all the tables hold."""
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return {name: statistics.fmean(t[name] for t in tables) for name in names}
