"""The plots of a report."""

import dataclasses
import os

from tf_mskd.runs.comparison import ComparedRun
from tf_mskd.runs.report_tables import measured
from tf_mskd.utils import figures
from tf_mskd.utils.names import number, numbered
from tf_mskd.utils.units import scaled


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
    kinds = sorted({measured(run.result) for run in runs.values()})
    return Curves(epochs, exits, ensembles, ", ".join(kinds), deviations)


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
