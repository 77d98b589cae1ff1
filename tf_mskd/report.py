"""Compares runs: one table, and curves over the epochs and over the exits.

    python -m tf_mskd.report --run_dirs=runs/digits/ce,runs/digits/mskd --output=report

Prints the table. --output also writes table.md, runs.json and curves.png to a folder;
--published also prints the published figures of the same data, networks and method.
"""

from absl import flags

from tf_mskd.runs import cli, comparison, published
from tf_mskd.utils.tables import as_text


def define() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_list("run_dirs", [], "Folders of finished runs; required.")
    flags.DEFINE_string("output", "", "Folder for table, numbers and curves.")
    flags.DEFINE_boolean("published", False, "Print the published figures too.")


def main() -> None:
    """Prints the table and writes the files."""
    values = flags.FLAGS
    runs = comparison.read_runs(values.run_dirs)
    print(as_text(comparison.rows_of(runs)))
    if values.published:
        print(published.describe(values.run_dirs))
    if values.output:
        comparison.write(runs, values.output)
        print(f"wrote table.md, runs.json and curves.png to {values.output}")


if __name__ == "__main__":
    cli.run(main, define, __doc__)
