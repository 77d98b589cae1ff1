"""Finished runs side by side: which folders hold them, their results and their logs."""

import dataclasses
import os
import pathlib
import re
import statistics
from collections.abc import Sequence

from tf_mskd.runs.config import Config
from tf_mskd.runs.result import Result, read_result
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.names import numbered
from tf_mskd.utils.run_paths import RunPaths


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """A finished run, or several of one recipe as one: its result and its logs.

    Args:
        result: `Result`; of several seeds, the means.
        history: list of dict, likewise.
        folder: path of the run folder; of several, that of the first.
        runs: the single runs that it stands for, by seed; empty for a run alone.
        config: `Config` of the recipe, where the flags were read.
    """

    result: Result
    history: list[dict]
    folder: pathlib.Path = pathlib.Path()
    runs: tuple["ComparedRun", ...] = ()
    config: Config | None = None

    @property
    def figure(self) -> str:
        """Name of the ensemble's figure in the logs, on validation if possible."""
        held_out = f"val_ensemble_{self.result.metric}"
        in_steps = f"ensemble_{self.result.step_metric}"
        return held_out if held_out in self.history[0] else in_steps

    @property
    def single(self) -> tuple["ComparedRun", ...]:
        """The single runs: those that it stands for, or itself."""
        return self.runs or (self,)

    @property
    def by_seed(self) -> dict[int, "ComparedRun"]:
        """The single runs by their seeds, ascending."""
        seeds = {(r.config or r.result).seed: r for r in self.single}
        return dict(sorted(seeds.items()))

    @property
    def exits(self) -> list[str]:
        """Names of the exits, shallow to deep."""
        return numbered(self.result.test, "exit")

    @property
    def main(self) -> str:
        """What the run answers with: "ensemble", or its only exit."""
        return self.exits[0] if len(self.exits) == 1 else "ensemble"

    @property
    def best_epoch(self) -> int | None:
        """Epoch of the best student by validation; None unless one was measured.

        The first one that no later epoch surpasses, of those in which all exits train,
        as `callbacks.BestStudent` takes it.
        """
        if not self.result.test_best:
            return None
        logs = [e for e in self.history if e.get("phase") == len(self.exits)]
        return max(logs, key=lambda e: e[self.figure])["epoch"] if logs else None

    def deviation(self, table: str, name: str) -> float | None:
        """Sample standard deviation of a figure over the seeds; None of one run.

        Args:
            table: field of `Result`, such as "test".
            name: figure in it, such as "exit_1".
        """
        if len(self.runs) < 2:
            return None
        return statistics.stdev(getattr(r.result, table)[name] for r in self.runs)


def read_runs(run_dirs: Sequence[str | os.PathLike]) -> dict[str, ComparedRun]:
    """Reads result.json and metrics.jsonl of finished runs.

    Args:
        run_dirs: paths of the run folders, or of folders of them: see `find_runs`.

    Returns:
        dict, folder name (or the path, where two have one name) -> `ComparedRun`.

    Raises:
        UserError: if a folder holds no finished run, or a damaged one.
    """
    folders = find_runs(run_dirs)
    names = [_name(folder) for folder in folders]
    runs = {}
    for folder, name in zip(folders, names, strict=True):
        paths = RunPaths(folder)
        result = read_result(paths.result, former=True)
        key = name if names.count(name) == 1 else str(folder)
        run = ComparedRun(result, _history(paths.history, result), folder)
        if run.main not in result.test:
            raise UserError(f"{paths.result} is damaged: it holds no {run.main!r}.")
        runs[key] = run
    return runs


def _name(folder):
    plain = folder.name not in ("", "..")
    return folder.name if plain else folder.resolve().name


def find_runs(run_dirs: Sequence[str | os.PathLike]) -> list[pathlib.Path]:
    """Returns the folders of finished runs, each once.

    Args:
        run_dirs: paths of run folders, or of folders that hold them, such as the one of
            a search: each of these stands for the finished runs in it, by name.

    Raises:
        UserError: if nothing is given, or a folder holds no finished run.
    """
    if not run_dirs:
        raise UserError("--run_dirs is empty: name the folders to compare.")
    found: dict[str, pathlib.Path] = {}
    for folder in map(pathlib.Path, run_dirs):
        runs = [folder, *(sorted(folder.iterdir()) if folder.is_dir() else [])]
        runs = [run for run in runs if RunPaths(run).result.is_file()]
        if not runs:
            raise UserError(f"{str(folder)!r} holds no finished run (no result.json).")
        for run in runs[:1] if runs[0] == folder else runs:
            found.setdefault(os.path.realpath(run), run)
    return list(found.values())


def find_row(runs: dict[str, ComparedRun], text: str, flag: str) -> str:
    """Returns the name of a row that a flag names: "kd" stands for "kd_seed*" too.

    Args:
        runs: the rows by name.
        text: what the flag holds.
        flag: name of the flag, for the message.

    Raises:
        UserError: if there is no such row, or it stands for several.
    """
    if text in runs:
        return text
    short = {
        name: re.sub(r"[_-]?(seed)?[_=-]?\*", "", name).strip("/") for name in runs
    }
    found = [name for name, brief in short.items() if brief == text]
    if len(found) > 1:
        raise UserError(f"{flag}={text} may be {' or '.join(found)}: name one of them.")
    if not found:
        raise unknown_name(f"row of {flag}", text, runs)
    return found[0]


def _history(path, result):
    history = files.read_json_lines(path)
    if not history:
        raise UserError(f"{path} is damaged: it holds no epoch.")
    figure = ComparedRun(result, history).figure
    for line, epoch in enumerate(history, start=1):
        needed = [epoch.get("epoch"), epoch.get(figure)]
        if not all(isinstance(value, int | float) for value in needed):
            raise UserError(f"{path} is damaged: line {line} is not that of an epoch.")
    return history
