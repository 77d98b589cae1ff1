"""The plots of a report."""

import dataclasses
import os
import statistics

from tf_mskd.runs.comparison import ComparedRun
from tf_mskd.runs.paired import TOO_FEW, UNDECIDED
from tf_mskd.runs.report_tables import Report, difference_in, kinds_of, measured
from tf_mskd.utils import figures
from tf_mskd.utils.names import number
from tf_mskd.utils.units import scaled

APART = 1.2  # factor in MACs between the squares of the first and the last row
COLORS = {
    "better": "tab:green",
    "worse": "tab:red",
    UNDECIDED: "silver",
    TOO_FEW: "gainsboro",
}


@dataclasses.dataclass(frozen=True)
class Curves:
    """The series of the drawing of some runs, fractions in percent.

    Args:
        epochs: label -> (epochs, figures of the run's ensemble).
        exits: run -> (numbers of the exits, figures on the test split).
        ensembles: run -> test figures of its ensemble, plain and fitted; runs with
            one exit have none.
        unit: what was measured in the test, such as "accuracy (%)".
        unit_of_epochs: likewise during training, which may be another figure.
        deviations: run of several seeds -> standard deviations of `exits`.
        bands: label of several seeds -> standard deviations of `epochs`.
    """

    epochs: dict[str, tuple[list[int], list[float]]]
    exits: dict[str, tuple[list[int], list[float]]]
    ensembles: dict[str, tuple[float, float]]
    unit: str
    unit_of_epochs: str
    deviations: dict[str, list[float]]
    bands: dict[str, list[float]]


def curves(runs: dict[str, ComparedRun]) -> Curves:
    """Returns the series of the figure."""
    epochs, exits, ensembles, deviations, bands = {}, {}, {}, {}, {}
    for name, run in runs.items():
        split = "validation" if run.figure.startswith("val_") else "training images"
        unit = run.result.unit
        label = f"{name}, {split}"
        epochs[label] = (
            [epoch["epoch"] for epoch in run.history],
            [scaled(epoch[run.figure], unit) for epoch in run.history],
        )
        test = run.result.test
        names = run.exits
        exits[name] = [number(n) for n in names], [scaled(test[n], unit) for n in names]
        if run.runs:
            over_exits = [run.deviation("test", n) or 0.0 for n in names]
            deviations[name] = [scaled(value, unit) for value in over_exits]
            bands[label] = [scaled(value, unit) for value in _over_epochs(run)]
        if len(names) > 1:
            plain = test["ensemble"]
            fitted = test.get("ensemble_fitted", plain)
            ensembles[name] = scaled(plain, unit), scaled(fitted, unit)
    logged = {
        measured(run.result, run.figure.partition("ensemble_")[2])
        for run in runs.values()
    }
    units = kinds_of(runs), ", ".join(sorted(logged))
    return Curves(epochs, exits, ensembles, *units, deviations, bands)


def _over_epochs(run):
    """Sample standard deviations over the seeds, epoch by epoch."""
    logs = zip(*(single.history for single in run.runs), strict=True)
    return [statistics.stdev(log[run.figure] for log in epoch) for epoch in logs]


def draw(runs: dict[str, ComparedRun], path: str | os.PathLike) -> None:
    """Draws the figure over the epochs, and over the exits, into one PNG.

    Args:
        runs: see `comparison.read_runs`.
        path: path of the file, replaced atomically.
    """
    with figures.panels(path, 2, (13, 5)) as (left, right):
        _draw(curves(runs), left, right)


def _draw(drawn, left, right):
    _set_colors(len(drawn.exits), left, right)
    for label, (epochs, values) in drawn.epochs.items():
        (line,) = left.plot(epochs, values, label=_plain(label))
        if label in drawn.bands:
            around = list(zip(values, drawn.bands[label], strict=True))
            low, high = [v - d for v, d in around], [v + d for v, d in around]
            left.fill_between(
                epochs, low, high, color=line.get_color(), alpha=0.15, linewidth=0
            )
    for name, (numbers, values) in drawn.exits.items():
        (line,) = right.plot(numbers, values, "o-", label=_plain(name))
        if name in drawn.deviations:
            bars = {"fmt": "none", "capsize": 3, "ecolor": line.get_color()}
            right.errorbar(numbers, values, drawn.deviations[name], **bars)
        for marker, value in zip("s^", drawn.ensembles.get(name, ()), strict=False):
            right.plot(max(numbers) + 0.5, value, marker, color=line.get_color())
    left.set(xlabel="epoch", ylabel=f"ensemble: {drawn.unit_of_epochs}")
    band = ", band: ± deviation of the seeds" if drawn.bands else ""
    left.set_title(f"during training{band}")
    right.set(xlabel="exit (square: plain ensemble, triangle: fitted weights)")
    right.set(ylabel=f"test {drawn.unit}", title="test split, last epoch")
    left.set_ylim(*_range_of_late_epochs(drawn.epochs.values()))
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)


def _range_of_late_epochs(curves):
    """Ends of an axis that need not show the steep first tenth of the epochs."""
    late = [value for _, values in curves for value in values[len(values) // 10 :]]
    margin = 0.15 * (max(late) - min(late) or 1)
    return min(late) - margin, max(late) + margin


def draw_macs(runs: dict[str, ComparedRun], path: str | os.PathLike) -> None:
    """Draws the test figures over the MACs of what is deployed into a PNG.

    Args:
        runs: see `comparison.read_runs`.
        path: path of the file, replaced atomically.
    """
    with figures.panels(path, 1, (8, 5.5)) as (axes,):
        _set_colors(len(runs), axes)
        for place, (name, run) in enumerate(runs.items()):
            _draw_macs(axes, name, run, APART ** ((place + 0.5) / len(runs) - 0.5))
        axes.set(xscale="log", xlabel="multiply-accumulates of an image")
        axes.set(ylabel=f"test {kinds_of(runs)}")
        axes.set_title("dots: each exit alone; squares: all exits, set apart sideways")


def _draw_macs(axes, name, run, shift):
    result, unit = run.result, run.result.unit
    exits = [exit for exit in run.exits if exit in result.macs]
    macs = [result.macs[exit] for exit in exits]
    values = [scaled(result.test[exit], unit) for exit in exits]
    (dots,) = axes.plot(macs, values, "o", alpha=0.5, label=_plain(name))
    if run.main == "ensemble":
        value = scaled(result.test["ensemble"], unit)
        deviation = scaled(run.deviation("test", "ensemble") or 0.0, unit)
        style = {"fmt": "s", "color": dots.get_color(), "capsize": 3}
        axes.errorbar(shift * result.macs["ensemble"], value, deviation, **style)


def draw_intervals(report: Report, path: str | os.PathLike) -> None:
    """Draws the main figures with their deviations, and the paired differences.

    Args:
        report: `Report`.
        path: path of the PNG, replaced atomically.
    """
    paired, rows = report.paired, report.rows
    size = 0.08 * max(map(len, rows)) + (12 if paired else 6), 1.6 + 0.4 * len(rows)
    with figures.panels(path, 2 if paired else 1, size) as (left, *others):
        for axes in (left, *others):
            axes.set_yticks(range(len(rows)), [""] * len(rows))
            axes.set_ylim(len(rows) - 0.5, -0.5)  # the first row at the top
        left.set_yticklabels([_plain(name) for name in rows])
        _draw_figures(left, rows)
        if paired:
            _draw_paired(others[0], paired, rows)


def _draw_figures(axes, rows):
    for place, run in enumerate(rows.values()):
        unit, main = run.result.unit, run.main
        value, deviation = run.result.test[main], run.deviation("test", main)
        error = None if deviation is None else scaled(deviation, unit)
        axes.errorbar(scaled(value, unit), place, xerr=error, fmt="o", capsize=4)
    axes.set(xlabel=f"test {kinds_of(rows)}")
    spread = " ± deviation of the seeds" if any(r.runs for r in rows.values()) else ""
    axes.set_title(f"ensemble or only exit{spread}, last epoch")


def _draw_paired(axes, paired, rows):
    base, told = rows[paired.against].result, set()
    for place, difference in enumerate(map(paired.last.get, rows)):
        if difference is None or difference.mean is None:
            continue
        mean, claim = scaled(difference.mean, base.unit), difference.claim
        label = None if claim in told else claim
        axes.barh(place, mean, color=COLORS[claim], height=0.6, label=label)
        told.add(claim)
        if difference.high is not None:
            half = scaled(difference.high, base.unit) - mean
            axes.errorbar(mean, place, xerr=half, fmt="none", ecolor="black", capsize=4)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel=f"difference in {difference_in(base)}")
    axes.set_title(f"minus {_plain(paired.against)} by seed, 95 % interval")


def _set_colors(count, *panels):
    from matplotlib import colormaps

    if count > 10:  # the default colours would repeat
        for axes in panels:
            axes.set_prop_cycle(color=colormaps["tab20"].colors)


def _plain(label):
    """A label as it is: matplotlib reads "$" as formulas, and hides a leading "_"."""
    label = label.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label
