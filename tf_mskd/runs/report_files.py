"""The files of a report."""

import os

from tf_mskd.runs.comparison import ComparedRun
from tf_mskd.runs.report_plots import draw
from tf_mskd.runs.report_tables import rows_of
from tf_mskd.utils import files
from tf_mskd.utils.tables import as_text


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
