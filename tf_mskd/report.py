"""Compares runs: tables, plots, and what the seeds tell.

    python -m tf_mskd.report --run_dirs=runs/digits/ce,runs/digits/mskd --output=report
    python -m tf_mskd.report --run_dirs=runs/study --against=student --output=report

--run_dirs may be given again; a folder that holds runs, such as that of a search,
stands for all of them. Prints the tables. --output also writes the page report.html,
table.md, summary.json, runs.json and plots to a folder; --group_seeds shows runs that
differ in --seed alone as one, by mean and standard deviation; --against compares the
rows with one of them, seed by seed; --published also prints the published figures of
the same data, networks and method.
"""

from absl import flags

from tf_mskd.runs import cli, published, report_files, seeds
from tf_mskd.runs.comparison import find_runs, read_runs
from tf_mskd.runs.paired import paired_with
from tf_mskd.runs.report_tables import Report, as_lines, sections
from tf_mskd.runs.training_cost import training_cost
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.files import split_paths


def define() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_multi_string(
        "run_dirs",
        [],
        "Folders of finished runs, or of folders that hold them; required. Commas "
        "between, or the flag again.",
    )
    flags.DEFINE_string("output", "", "Folder for the page, tables and plots.")
    flags.DEFINE_boolean(
        "group_seeds",
        None,
        "Runs that differ in --seed alone as one row: mean ± sample standard deviation "
        "and their number; default: with --against. runs.json keeps each run.",
    )
    flags.DEFINE_string(
        "against",
        "",
        "Row to compare the others with: differences of the same seeds, 95 % interval.",
    )
    flags.DEFINE_boolean(
        "common_seeds",
        False,
        "With --against, pair the seeds that two rows share, if others are missing.",
    )
    flags.DEFINE_string(
        "cost_of",
        "",
        "Row whose time of training counts as 1; empty: the student alone, if it is "
        "among the rows.",
    )
    flags.DEFINE_boolean("published", False, "Print the published figures too.")


def main() -> None:
    """Prints the tables and writes the files."""
    values = flags.FLAGS
    _check(values)
    given = [folder for text in values.run_dirs for folder in split_paths(text)]
    runs = rows = read_runs(given)
    if values.group_seeds or values.against:
        rows = seeds.group_seeds(runs)
    cost, paired = training_cost(rows, values.cost_of), None
    if values.against:
        paired = paired_with(rows, values.against, values.common_seeds)
    report = Report(runs, rows, cost, paired)
    print(as_lines(sections(report)))
    if values.published:
        print(published.describe([str(folder) for folder in find_runs(given)]))
    if values.output:
        names = report_files.write(report, values.output)
        print(f"wrote {', '.join(names)} to {values.output}")


def _check(values):
    if values.against and values.group_seeds is False:
        raise UserError("--against pairs rows of seeds: leave out --group_seeds=false.")
    if values.common_seeds and not values.against:
        raise UserError("--common_seeds needs --against=ROW, to pair its seeds with.")


if __name__ == "__main__":
    cli.run(main, define, __doc__)
