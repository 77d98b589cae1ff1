"""Finished runs side by side: a table, and the curves of a figure."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from tf_mskd.runs.result import Result, read_result
from tf_mskd.utils import figures, files
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.names import number, numbered
from tf_mskd.utils.run_paths import RunPaths
from tf_mskd.utils.tables import as_text, count_text
from tf_mskd.utils.units import scaled

ACCURACY = "accuracy (%)"
ENSEMBLES = (
    "ensemble",
    "ensemble_logits",
    "ensemble_probabilities",
    "ensemble_fitted",
)


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


@dataclasses.dataclass(frozen=True)
class Curves:
    """The series of the drawing of some runs, fractions in percent.

    Args:
        epochs: label -> (epochs, figures of the run's ensemble).
        exits: run -> (numbers of the exits, figures on the test split).
        ensembles: run -> test figures of its ensemble, plain and fitted; runs with
            one exit have none.
        unit: what was measured, such as "accuracy (%)".
        deviations: run of several seeds -> standard deviations of `exits`.
    """

    epochs: dict[str, tuple[list[int], list[float]]]
    exits: dict[str, tuple[list[int], list[float]]]
    ensembles: dict[str, tuple[float, float]]
    unit: str
    deviations: dict[str, list[float]]


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


def rows_of(runs: dict[str, ComparedRun]) -> list[list[str]]:
    """Returns the table as a list of rows of str, the header first.

    The figures are those of the test split at the last epoch, fractions in percent; a
    column says which, unless all are accuracies. A network with one exit has no
    ensemble, so these columns stay empty. MACs are those of the whole network. Of
    several seeds they are mean ± sample standard deviation, and a column counts them.
    """
    names = {name for run in runs.values() for name in run.result.macs}
    exits = numbered(names, "exit")
    ensembles = [
        name for name in ENSEMBLES if any(name in r.result.test for r in runs.values())
    ]
    header = ["run", *(name.replace("_", " ") for name in [*exits, *ensembles])]
    several = any(run.seeds > 1 for run in runs.values())
    rows = [[*header, "params", "MACs", "seconds", *(["seeds"] if several else [])]]
    for name, run in runs.items():
        result, test = run.result, run.result.test
        known = ensembles if len(numbered(test, "exit")) > 1 else ()
        row = [_text(run, exit) for exit in exits]
        row += [_text(run, e) if e in known else "" for e in ensembles]
        row += [count_text(result.params), count_text(result.macs["ensemble"])]
        row += [f"{result.seconds:.0f}", *([str(run.seeds)] if several else [])]
        rows.append([name, *row])
    measured = [_measured(run.result) for run in runs.values()]
    if set(measured) == {ACCURACY}:
        return rows
    column = ["figure", *measured]
    return [[row[0], text, *row[1:]] for row, text in zip(rows, column, strict=True)]


def _measured(result):
    return f"{result.metric} ({result.unit})" if result.unit else result.metric


def _text(run, name):
    unit = run.result.unit
    if name not in run.result.test:
        return ""
    text = f"{scaled(run.result.test[name], unit):.2f}"
    deviation = run.deviations.get(name)
    return text if deviation is None else f"{text} ± {scaled(deviation, unit):.2f}"


def curves(runs: dict[str, ComparedRun]) -> Curves:
    """Returns the series of the figure."""
    epochs, exits, ensembles, deviations = {}, {}, {}, {}
    for name, run in runs.items():
        split = "validation" if run.figure.startswith("val_") else "training images"
        unit = run.result.unit
        epochs[f"{name}, {split}"] = (
            [epoch["epoch"] for epoch in run.history],
            [scaled(epoch[run.figure], unit) for epoch in run.history],
        )
        test = run.result.test
        names = numbered(test, "exit")
        exits[name] = [number(n) for n in names], [scaled(test[n], unit) for n in names]
        if run.deviations:
            deviations[name] = [scaled(run.deviations[n], unit) for n in names]
        if len(names) > 1:
            plain = test["ensemble"]
            fitted = test.get("ensemble_fitted", plain)
            ensembles[name] = scaled(plain, unit), scaled(fitted, unit)
    measured = sorted({_measured(run.result) for run in runs.values()})
    return Curves(epochs, exits, ensembles, ", ".join(measured), deviations)


def draw(runs: dict[str, ComparedRun], path: str | os.PathLike) -> None:
    """Draws the figure over the epochs, and over the exits, into one PNG.

    Args:
        runs: see `read_runs`.
        path: path of the file, replaced atomically.
    """
    with figures.panels(path, 2, (13, 5)) as (left, right):
        _draw(curves(runs), left, right)


def _draw(drawn, left, right):
    from matplotlib import colormaps

    if len(drawn.exits) > 10:  # the default colours would repeat
        for axes in (left, right):
            axes.set_prop_cycle(color=colormaps["tab20"].colors)
    for label, (epochs, values) in drawn.epochs.items():
        left.plot(epochs, values, label=_plain(label))
    for name, (numbers, values) in drawn.exits.items():
        (line,) = right.plot(numbers, values, "o-", label=_plain(name))
        if name in drawn.deviations:
            bars = {"fmt": "none", "capsize": 3, "ecolor": line.get_color()}
            right.errorbar(numbers, values, drawn.deviations[name], **bars)
        for marker, value in zip("s^", drawn.ensembles.get(name, ()), strict=False):
            right.plot(max(numbers) + 0.5, value, marker, color=line.get_color())
    left.set(xlabel="epoch", ylabel=f"ensemble: {drawn.unit}")
    left.set_title("during training")
    right.set(xlabel="exit (square: plain ensemble, triangle: fitted weights)")
    right.set(ylabel=f"test {drawn.unit}", title="test split, last epoch")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)


def _plain(label):
    """A label as it is: matplotlib reads "$" as formulas, and hides a leading "_"."""
    label = label.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def write(
    runs: dict[str, ComparedRun],
    output: str | os.PathLike,
    shown: dict[str, ComparedRun] | None = None,
) -> None:
    """Writes table.md, runs.json (results and histories) and curves.png to a folder.

    Args:
        runs: see `read_runs`.
        output: path of the folder.
        shown: what table and curves show of them, see `seeds.group_seeds`; None for
            all.
    """
    folder, shown = files.make_folder(output), shown or runs
    files.write_text(folder / "table.md", as_text(rows_of(shown)) + "\n")
    content = {
        name: {"result": run.result.to_json(), "history": run.history}
        for name, run in runs.items()
    }
    files.write_json(folder / "runs.json", content)
    draw(shown, folder / "curves.png")
