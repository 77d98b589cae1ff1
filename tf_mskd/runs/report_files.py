"""The files of a report."""

import dataclasses
import os

from tf_mskd.runs.comparison import ComparedRun
from tf_mskd.runs.report_page import page
from tf_mskd.runs.report_plots import draw, draw_intervals, draw_macs
from tf_mskd.runs.report_tables import Report, as_markdown, sections
from tf_mskd.utils import files

FORMAT = 1  # of summary.json
CAPTIONS = {
    "curves.png": "The ensemble during training, and each exit at the last epoch.",
    "macs.png": "What is reached over what it costs.",
    "intervals.png": "The main figures; with --against the paired differences.",
}


def write(report: Report, output: str | os.PathLike) -> list[str]:
    """Writes a report to a folder; returns the names of the files.

    report.html     the page: tables, plots, commands and flags; it needs no other file
    table.md        the tables
    summary.json    their numbers
    runs.json       result and history of every run
    curves.png, macs.png, intervals.png

    Args:
        report: `Report`.
        output: path of the folder.
    """
    folder, found = files.make_folder(output), sections(report)
    pictures = [(text, folder / name) for name, text in CAPTIONS.items()]
    draw(report.rows, folder / "curves.png")
    draw_macs(report.rows, folder / "macs.png")
    draw_intervals(report, folder / "intervals.png")
    files.write_text(folder / "report.html", page(found, pictures, report.rows))
    files.write_text(folder / "table.md", as_markdown(found) + "\n")
    files.write_json(folder / "summary.json", summary(report))
    content = {
        name: {"result": run.result.to_json(), "history": run.history}
        for name, run in report.runs.items()
    }
    files.write_json(folder / "runs.json", content)
    return ["report.html", "table.md", "summary.json", "runs.json", *CAPTIONS]


def summary(report: Report) -> dict:
    """Returns the numbers of the tables, fractions where the unit is "%".

    "rows": row -> seeds, means and sample deviations, sizes, cost; "paired": with the
    row that is compared with, row -> "last" and "best", see `paired.Difference`.
    """
    ratios = report.cost.ratios if report.cost else {}
    found: dict = {
        "format": FORMAT,
        "rows": {
            name: _numbers(run, ratios.get(name)) for name, run in report.rows.items()
        },
        "cost_of": report.cost.of if report.cost else None,
    }
    if report.paired:
        kinds = {"last": report.paired.last, "best": report.paired.best}
        found["paired"] = {
            "against": report.paired.against,
            **{
                kind: {
                    name: {
                        **dataclasses.asdict(difference),
                        "mean": difference.mean,
                        "claim": difference.claim,
                    }
                    for name, difference in table.items()
                }
                for kind, table in kinds.items()
            },
        }
    return found


def _numbers(run: ComparedRun, cost):
    result = run.result
    return {
        "seeds": list(run.by_seed),
        "metric": result.metric,
        "unit": result.unit,
        "test": _spread(run, "test"),
        "test_best": _spread(run, "test_best") if result.test_best else None,
        "best_epochs": [single.best_epoch for single in run.by_seed.values()],
        "params": result.params,
        "exit_params": result.exit_params,
        "macs": result.macs,
        "seconds": result.seconds,
        "cost": cost,
    }


def _spread(run, table):
    return {
        name: {"mean": mean, "deviation": run.deviation(table, name)}
        for name, mean in getattr(run.result, table).items()
    }
