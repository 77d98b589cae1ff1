"""The page of a report: one HTML file with everything in it."""

import base64
import html
import pathlib
import shlex
from collections.abc import Iterable, Sequence

from tf_mskd.runs.comparison import ComparedRun
from tf_mskd.runs.report_tables import Section
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError, one_line
from tf_mskd.utils.run_paths import RunPaths

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 80em;
       padding: 0 1em; color: #222; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right;
         white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
th { border-bottom: 2px solid #888; }
p { max-width: 50em; }
img { max-width: 100%; }
pre { background: #f5f5f5; padding: .7em; overflow-x: auto; }
.better { color: #176b17; font-weight: 600; }
.worse { color: #b01818; font-weight: 600; }
"""


def page(
    sections: Iterable[Section],
    pictures: Sequence[tuple[str, pathlib.Path]],
    rows: dict[str, ComparedRun],
) -> str:
    """Returns the text of an HTML page that needs no other file and no network.

    Args:
        sections: the tables.
        pictures: of (caption, path of a PNG).
        rows: whose commands and flags the page tells.

    Raises:
        UserError: if the record of a run is damaged.
    """
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Comparison of runs</title><style>{STYLE}</style></head><body>",
        "<h1>Comparison of runs</h1>",
        *map(_section, sections),
        "<h2>Plots</h2>",
        *(_picture(caption, path) for caption, path in pictures),
        "<h2>Commands and flags</h2>",
        *(_recipe(name, run) for name, run in rows.items()),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _section(section):
    header, *rows = section.rows
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f"<h2>{html.escape(section.title)}</h2>\n<p>{html.escape(section.note)}</p>\n"
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    )


def _cell(text):
    marked = f' class="{text}"' if text in ("better", "worse") else ""
    return f"<td{marked}>{html.escape(text)}</td>"


def _picture(caption, path):
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return f'<p><img alt="{text}" src="data:image/png;base64,{data}"><br>{text}</p>'


def _recipe(name, run):
    """The commands of a row's runs, and the flags of the first."""
    lines = [line for single in run.single for line in _provenance(single)]
    flags = RunPaths(run.folder).flags
    told = ""
    if flags.is_file():
        told = flags.read_text(encoding="utf-8", errors="replace")
    summary = f"<summary>flags of {html.escape(run.folder.name)}</summary>"
    return (
        f"<h3>{html.escape(name)}</h3>\n<pre>{html.escape(chr(10).join(lines))}</pre>\n"
        f"<details>{summary}<pre>{html.escape(told)}</pre></details>"
    )


def _provenance(run):
    """The command of a run as it was recorded, and where and with what it ran."""
    path = RunPaths(run.folder).record
    record = files.read_json(path) if path.is_file() else {}
    known = record if isinstance(record, dict) else {"command": None}
    command, versions = known.get("command", []), known.get("versions", {})
    if not (isinstance(command, list) and isinstance(versions, dict)):
        raise UserError(f"{path} is damaged: it holds no command and versions.")
    facts = [f"{name} {version}" for name, version in versions.items()]
    facts = [str(known[n]) for n in ("commit", "machine") if known.get(n)] + facts
    about = f"# {run.folder}: {', '.join(facts) or 'no record'}"
    lines = [about, *([shlex.join(map(str, command))] if command else [])]
    return [one_line(line) for line in lines]
