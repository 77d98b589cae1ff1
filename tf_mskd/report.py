"""Compares runs: one table, and curves over the epochs and over the exits.

    python -m tf_mskd.report --run_dirs=runs/digits/ce,runs/digits/mskd --output=report

--run_dirs may be given again; a folder that holds runs, such as that of a search,
stands for all of them. Prints the table. --output also writes table.md, runs.json and
curves.png to a folder; --group_seeds shows runs that differ in --seed alone as one, by
mean and standard deviation; --published also prints the published figures of the same
data, networks and method.
"""

from absl import flags

from tf_mskd.runs import cli, comparison, published, seeds
from tf_mskd.runs.comparison import find_runs
from tf_mskd.runs.comparison import read_runs as read_runs
from tf_mskd.runs.comparison import rows_of as rows_of
from tf_mskd.utils.files import split_paths
from tf_mskd.utils.tables import as_text


def define() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_multi_string(
        "run_dirs",
        [],
        "Folders of finished runs, or of folders that hold them; required. Commas "
        "between, or the flag again.",
    )
    flags.DEFINE_string("output", "", "Folder for table, numbers and curves.")
    flags.DEFINE_boolean(
        "group_seeds",
        False,
        "Runs that differ in --seed alone as one row: mean ± sample standard deviation "
        "of the accuracies, and their number. runs.json keeps each run.",
    )
    flags.DEFINE_boolean("published", False, "Print the published figures too.")


def main() -> None:
    """Prints the table and writes the files."""
    values = flags.FLAGS
    given = [folder for text in values.run_dirs for folder in split_paths(text)]
    runs = shown = read_runs(given)
    if values.group_seeds:
        shown = seeds.group_seeds(runs, find_runs(given))
    print(as_text(rows_of(shown)))
    if values.published:
        print(published.describe([str(folder) for folder in find_runs(given)]))
    if values.output:
        comparison.write(runs, values.output, shown)
        print(f"wrote table.md, runs.json and curves.png to {values.output}")


if __name__ == "__main__":
    cli.run(main, define, __doc__)
