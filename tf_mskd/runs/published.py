"""The published figures, and a run's own beside them."""

import csv
import dataclasses
import functools
import os
from collections.abc import Sequence

from tf_mskd.runs.config import Config
from tf_mskd.runs.flags import find_flagfile, read_flagfile, read_flags
from tf_mskd.runs.result import read_result
from tf_mskd.runs.stages import required_config
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.run_paths import RunPaths
from tf_mskd.utils.tables import as_text

FIGURES = "results/published.csv"
HEADER = ["run", "method", "pair", "exit", "published", "measured", "differs in"]
# flagfiles of methods that are not named as in the tables
RECIPES = {"ab": "ab_two_stage"}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A published test accuracy.

    Args:
        table: data set, such as "cifar100".
        method: name in the table, such as "oto_star"; "fitnet,kd" is FitNet + KD.
        pair: "teacher:student", or one network for a baseline.
        exit: "exit_1" and so on, "last" or "ensemble".
        value: fraction in [0, 1].
        source: where it was published.
    """

    table: str
    method: str
    pair: str
    exit: str
    value: float
    source: str

    @property
    def flags(self) -> list[str]:
        """The flags of `tf_mskd.train` that repeat the experiment.

        Example:
            >>> figure = Figure("cifar100", "kd", "vgg13:vgg8", "last", 0.7298, "")
            >>> for flag in figure.flags: print(flag)
            --flagfile=configs/pairs/cifar100_vgg13_vgg8.flags
            --flagfile=configs/methods/kd.flags
        """
        teacher, _, student = self.pair.rpartition(":")
        if not teacher:
            return [f"--flagfile=configs/{self.table}/{student}.flags"]
        method, _, more = self.method.partition(",")
        pair = f"configs/pairs/{self.table}_{teacher}_{student}.flags"
        recipe = f"configs/methods/{RECIPES.get(method, method)}.flags"
        flags = [f"--flagfile={pair}", f"--flagfile={recipe}"]
        if more:
            alone = read_flags(flags).method  # of two stages: the second's
            flags += [f"--method={alone},{more}", f"--term_weights={more}:1"]
            flags.append(f"--teacher_flagfile={read_flagfile(pair).teacher_flagfile}")
        return flags


def read_figures(path: str | os.PathLike = FIGURES) -> list[Figure]:
    """Reads the published figures.

    Args:
        path: CSV with the columns table, method, pair, exit, value (percent), source.

    Raises:
        UserError: if the file is missing, or a line is no figure.

    Example:
        >>> figures = read_figures()
        >>> figures[0].pair, figures[0].value
        ('resnet10', 0.7619)
    """
    path = find_flagfile(str(path))
    if not os.path.isfile(path):
        raise UserError(
            f"No published figures {path!r} (in {os.getcwd()}): name a CSV file."
        )
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return [_figure(**row) for row in csv.DictReader(file)]
    except (TypeError, ValueError):
        raise UserError(
            f"{path} is damaged: each line is table,method,pair,exit,value,source."
        ) from None


def _figure(value, **names):
    return Figure(value=round(float(value) / 100, 6), **names)


def describe(run_dirs: Sequence[str]) -> str:
    """Returns the table of `rows_of` as text, and a line on the runs without figures.

    Args:
        run_dirs: folders of finished runs.
    """
    rows = rows_of(run_dirs)
    known = {row[0] for row in rows}
    unknown = [folder for folder in run_dirs if folder not in known]
    lines = [as_text(rows)] if rows[1:] else []
    if unknown:
        lines.append(f"No published figures for {', '.join(unknown)}.")
    return "\n".join(lines)


def rows_of(run_dirs: Sequence[str]) -> list[list[str]]:
    """Returns the published figures of runs as a list of rows of str, the header first.

    A run's cell is that of its data set, networks and method; of several, the one whose
    settings differ least, named in the last column. Accuracies are test top-1 in
    percent, the run's own at the last epoch.

    Args:
        run_dirs: folders of finished runs.

    Raises:
        UserError: if the figures, a run or its flagfiles cannot be read.
    """
    figures, rows = read_figures(), [HEADER]
    for folder in run_dirs:
        paths = RunPaths(folder)
        config, result = read_flagfile(str(paths.flags)), read_result(paths.result)
        cell, differences = _cell(config, result, figures)
        for figure in cell:
            row = [folder, figure.method, figure.pair, figure.exit.replace("_", " ")]
            row += [_percent(figure.value), _percent(_accuracy(result, figure.exit))]
            rows.append([*row, ", ".join(differences)])
    return rows


def _cell(config, result, figures):
    """The figures of the run's cell, and the settings in which it differs."""
    teacher = _teacher(config, result)
    pair = f"{teacher}:{config.model}" if teacher else config.model
    same = [f for f in figures if (f.table, f.pair) == (config.dataset, pair)]
    found = []
    for method in dict.fromkeys(figure.method for figure in same):
        cell = [figure for figure in same if figure.method == method]
        published = _read(tuple(cell[0].flags))
        names = ("method", "init_stage")
        if all(getattr(config, n) == getattr(published, n) for n in names):
            found.append((cell, _differences(config, published)))
    return min(found, key=lambda item: len(item[1]), default=([], []))


def _teacher(config, result):
    """Name of the teacher's network; of a student in two stages, the first one's."""
    if not config.init_stage:
        return result.teacher
    return required_config(required_config(config, "init"), "teacher").model


def _differences(config, published):
    fields = [f for f in dataclasses.fields(Config) if not f.metadata["free"]]
    names = [f.name for f in fields if f.name != "seed"]
    return [n for n in names if getattr(config, n) != getattr(published, n)]


@functools.cache
def _read(flags):
    return read_flags(list(flags))


def _accuracy(result, exit):
    exits = [name for name in result.test if name.startswith("exit_")]
    if exit == "ensemble" and len(exits) == 1:
        return None
    if exit == "last":
        exit = max(exits, key=lambda name: int(name.removeprefix("exit_")))
    return result.test.get(exit)


def _percent(value):
    return "" if value is None else f"{100 * value:.2f}"
