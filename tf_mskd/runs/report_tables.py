"""The tables of a report."""

from tf_mskd.runs.comparison import ComparedRun
from tf_mskd.runs.result import Result
from tf_mskd.utils.names import numbered
from tf_mskd.utils.tables import count_text
from tf_mskd.utils.units import scaled

ACCURACY = "accuracy (%)"
ENSEMBLES = (
    "ensemble",
    "ensemble_logits",
    "ensemble_probabilities",
    "ensemble_fitted",
)


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
    kinds = [measured(run.result) for run in runs.values()]
    if set(kinds) == {ACCURACY}:
        return rows
    column = ["figure", *kinds]
    return [[row[0], text, *row[1:]] for row, text in zip(rows, column, strict=True)]


def measured(result: Result) -> str:
    """Says what a result is in, such as "accuracy (%)"."""
    return f"{result.metric} ({result.unit})" if result.unit else result.metric


def _text(run, name):
    unit = run.result.unit
    if name not in run.result.test:
        return ""
    text = f"{scaled(run.result.test[name], unit):.2f}"
    deviation = run.deviations.get(name)
    return text if deviation is None else f"{text} ± {scaled(deviation, unit):.2f}"
