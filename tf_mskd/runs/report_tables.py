"""The tables of a report: what the runs reach, what differs, what is deployed."""

import dataclasses
import typing

from tf_mskd.runs.comparison import ComparedRun
from tf_mskd.runs.paired import Paired
from tf_mskd.runs.result import Result
from tf_mskd.runs.training_cost import TrainingCost
from tf_mskd.utils.names import numbered
from tf_mskd.utils.tables import as_text, count_text
from tf_mskd.utils.units import PERCENT, scaled

ACCURACY = "accuracy (%)"
DEPLOYED = "Deployed"
ENSEMBLES = (
    "ensemble",
    "ensemble_logits",
    "ensemble_probabilities",
    "ensemble_fitted",
)


@dataclasses.dataclass(frozen=True)
class Report:
    """What a report shows.

    Args:
        runs: every run, see `comparison.read_runs`.
        rows: the rows of the tables: the runs, or those of `seeds.group_seeds`.
        cost: training times side by side, or None.
        paired: differences by seed, or None.
    """

    runs: dict[str, ComparedRun]
    rows: dict[str, ComparedRun]
    cost: TrainingCost | None = None
    paired: Paired | None = None


class Section(typing.NamedTuple):
    """A table of a report: its title, what it shows, and its rows, the header first."""

    title: str
    note: str
    rows: list[list[str]]


def sections(report: Report) -> list[Section]:
    """Returns the tables of a report; those that would be empty are left out."""
    several = any(run.runs for run in report.rows.values())
    spread = " Mean ± sample standard deviation over the seeds." if several else ""
    best = {name: run for name, run in report.rows.items() if run.result.test_best}
    note = "The main figure on the test split; parameters and MACs of all exits."
    note += spread + _cost_note(report.cost)
    if not best:
        note += " No row held out a validation split, so there is no best epoch."
    found = [Section("Last epoch", note, rows_of(report.rows, report.cost))]
    if best:
        note = "The same figure of the student that was best by the validation split."
        rows = best_rows(best)
        found.append(Section("Best epoch by validation", f"{note}{spread}", rows))
    if report.paired:
        against = report.paired.against
        found.append(
            Section(
                f"Paired differences from {against}",
                f"Each row minus {against} of the same seed, in the ensemble or the "
                "only exit of each, on the test split: mean, and its 95 % interval by "
                "Student's t. Better or worse is said only where that excludes 0; "
                "among many rows some do so by chance.",
                paired_rows(report.rows[against].result, report.paired),
            )
        )
    note = "What each exit alone and all exits together reach and cost."
    rows = deployed_rows(report.rows)
    return [*found, Section(DEPLOYED, f"{note}{spread}", rows)]


def _cost_note(cost):
    if not cost:
        return ""
    return (
        f" Cost: time of training as a multiple of that of {cost.of}; of each phase "
        "the median epoch without the first, which builds the graph, times its epochs. "
        "Validation and other runs, such as the teacher's, are not counted."
    )


def as_lines(found: list[Section]) -> str:
    """Returns the tables for a terminal: all but what is deployed, which is long."""
    first, *others = [section for section in found if section.title != DEPLOYED]
    texts = [f"{section.title}\n\n{as_text(section.rows)}" for section in others]
    return "\n\n".join([as_text(first.rows), *texts])


def as_markdown(found: list[Section]) -> str:
    """Returns the tables with their titles and notes as Markdown."""
    return "\n\n".join(f"## {s.title}\n\n{s.note}\n\n{as_text(s.rows)}" for s in found)


def rows_of(
    runs: dict[str, ComparedRun], cost: TrainingCost | None = None
) -> list[list[str]]:
    """Returns the table as a list of rows of str, the header first.

    The figures are those of the test split at the last epoch, fractions in percent; a
    column says which, unless all are accuracies. A network with one exit has no
    ensemble, so these columns stay empty. MACs are those of the whole network. Of
    several seeds they are mean ± sample standard deviation, and a column counts them.
    """
    header, *rows = _figure_rows(runs, "test")
    header += ["params", "MACs", "seconds", *(["cost"] if cost else [])]
    for row, (name, run) in zip(rows, runs.items(), strict=True):
        result = run.result
        row += [count_text(result.params), count_text(result.macs["ensemble"])]
        row.append(f"{result.seconds:.0f}")
        if cost:
            row.append(f"{cost.ratios[name]:.2f}" if name in cost.ratios else "")
    return _with_seeds([header, *rows], runs)


def best_rows(runs: dict[str, ComparedRun]) -> list[list[str]]:
    """Returns the table of the best epochs by validation, like `rows_of`.

    Args:
        runs: those that have measured their best student.
    """
    header, *rows = _figure_rows(runs, "test_best")
    for row, run in zip(rows, runs.values(), strict=True):
        row.append(_range([single.best_epoch for single in run.single]))
    return _with_seeds([[*header, "epoch"], *rows], runs)


def deployed_rows(runs: dict[str, ComparedRun]) -> list[list[str]]:
    """Returns the table of what may be deployed: each exit alone, and all of them."""
    table = [["run", "deployed", f"test {kinds_of(runs)}", "params", "MACs"]]
    for name, run in runs.items():
        result = run.result
        params, macs = {**(result.exit_params or {})}, {**result.macs}
        params[run.main], macs[run.main] = result.params, result.macs["ensemble"]
        for part in dict.fromkeys([*run.exits, run.main]):
            sizes = [count_text(n[part]) if part in n else "" for n in (params, macs)]
            what = "all exits" if part == "ensemble" else part.replace("_", " ")
            table.append([name, what, _text(run, part), *sizes])
    return table


def paired_rows(base: Result, paired: Paired) -> list[list[str]]:
    """Returns the table of differences by seed.

    Args:
        base: result of the row that the others are compared with.
        paired: the differences.
    """
    unit = difference_in(base)
    table = [["row", "epoch", "seeds", unit, "95 % interval", "claim"]]
    for name in paired.last:
        for epoch, found in (("last", paired.last), ("best", paired.best)):
            if name in found:
                table.append([name, epoch, *_difference_texts(found[name], base.unit)])
    return table


def measured(result: Result, metric: str = "") -> str:
    """Says what a figure of a result is in, such as "accuracy (%)".

    Args:
        result: `Result`.
        metric: the figure; "" for the main one.
    """
    metric = metric or result.metric
    return f"{metric} ({result.unit})" if result.unit else metric


def kinds_of(runs: dict[str, ComparedRun]) -> str:
    """Says what the main figures of some runs are in."""
    return ", ".join(sorted({measured(run.result) for run in runs.values()}))


def difference_in(result: Result) -> str:
    """Says what a difference of two results is in, such as "accuracy (points)"."""
    unit = "points" if result.unit == PERCENT else result.unit
    return f"{result.metric} ({unit})" if unit else result.metric


def _figure_rows(runs, table):
    tables = {name: getattr(run.result, table) for name, run in runs.items()}
    names = {name for figures in tables.values() for name in figures}
    exits = numbered(names, "exit")
    ensembles = [name for name in ENSEMBLES if name in names]
    kinds = {name: measured(run.result) for name, run in runs.items()}
    shows_kind = set(kinds.values()) != {ACCURACY}
    header = [name.replace("_", " ") for name in [*exits, *ensembles]]
    rows = [["run", *(["figure"] if shows_kind else []), *header]]
    for name, run in runs.items():
        known = ensembles if run.main == "ensemble" else ()
        row = [_text(run, exit, table) for exit in exits]
        row += [_text(run, e, table) if e in known else "" for e in ensembles]
        rows.append([name, *([kinds[name]] if shows_kind else []), *row])
    return rows


def _with_seeds(rows, runs):
    if any(run.runs for run in runs.values()):
        counts = ["seeds", *(str(len(run.single)) for run in runs.values())]
        rows = [[*row, count] for row, count in zip(rows, counts, strict=True)]
    return rows


def _text(run, name, table="test"):
    unit, figures = run.result.unit, getattr(run.result, table)
    if name not in figures:
        return ""
    text = _rounded(figures[name], unit)
    deviation = run.deviation(table, name)
    return text if deviation is None else f"{text} ± {_rounded(deviation, unit)}"


def _difference_texts(difference, unit):
    numbers = (difference.mean, difference.low, difference.high)
    known = [_rounded(value, unit, "+") for value in numbers if value is not None]
    mean, *ends = known or [""]
    return [str(len(difference.seeds)), mean, " to ".join(ends), difference.claim]


def _rounded(value, unit, sign=""):
    """A figure without its unit: two digits, four where it has none."""
    return f"{scaled(value, unit):{sign}.{2 if unit else 4}f}"


def _range(numbers):
    """The numbers that are known, from the lowest to the highest.

    >>> _range([7, None, 9, 8]), _range([7, 7]), _range([None])
    ('7-9', '7', '')
    """
    ends = sorted({number for number in numbers if number is not None})
    return "-".join(str(n) for n in dict.fromkeys(ends[:1] + ends[-1:]))
