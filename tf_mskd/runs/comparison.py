"""Finished runs side by side: which folders hold them, their results and their logs."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from tf_mskd.runs.result import Result, read_result
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.run_paths import RunPaths


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """A finished run: its result, and the logs of its epochs.

    Args:
        result: `Result`; of several seeds, the means.
        history: list of dict, likewise.
        seeds: int, the runs that it is the mean of.
        deviations: dict, name in `result.test` -> sample standard deviation of the
            accuracy over the seeds.
    """

    result: Result
    history: list[dict]
    seeds: int = 1
    deviations: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def figure(self) -> str:
        """Name of the ensemble's figure in the logs, on validation if possible."""
        held_out = f"val_ensemble_{self.result.metric}"
        in_steps = f"ensemble_{self.result.step_metric}"
        return held_out if held_out in self.history[0] else in_steps


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
        runs[key] = ComparedRun(result, _history(paths.history, result))
    return runs


def _name(folder):
    plain = folder.name not in ("", "..")
    return folder.name if plain else folder.resolve().name


def split_folders(text: str) -> list[str]:
    """Splits "a,b" into paths; a comma in the name of a folder that exists stays.

    Example:
        >>> split_folders("runs/teacher, runs/mskd")
        ['runs/teacher', 'runs/mskd']
    """
    parts, found = text.split(","), []
    while parts:
        counts = range(len(parts), 0, -1)
        candidates = {n: ",".join(parts[:n]).strip() for n in counts}
        count = next((n for n in counts if os.path.isdir(candidates[n])), 1)
        found.append(candidates[count])
        parts = parts[count:]
    return [path for path in found if path]


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
