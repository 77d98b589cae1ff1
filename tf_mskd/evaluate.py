"""Measures a finished run again: every exit and the ensemble; on request all subsets.

    python -m tf_mskd.evaluate --run_dir=runs/digits/mskd --subsets
    python -m tf_mskd.evaluate --run_dir=runs/digits/mskd --early_exit

--early_exit measures the accuracy and the cost of early exits under the thresholds that
`tf_mskd.calibrate` has fitted, and writes early_exit.json and early_exit.png. Where the
exits answer at every pixel it needs no calibration and tries several thresholds.

--subsets measures the ensemble of every subset of the exits on the validation and the
test split, and how far the exits and those of the teacher agree, and writes
subsets.json and subsets.png; of tasks whose answers are not one class, the figures of
every subset on the test split alone.
"""

from absl import flags

from tf_mskd.runs import cli
from tf_mskd.runs.inputs import check_finished_run
from tf_mskd.utils.choices import STUDENTS
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.start import start_tensorflow


def define() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_string("run_dir", "", "Folder of a finished run; required.")
    flags.DEFINE_string("data_dir", "", "Data folder instead of the run's.")
    flags.DEFINE_boolean("subsets", False, "Which exits should vote: all subsets.")
    flags.DEFINE_enum(
        "which", "last", list(STUDENTS), "Student: last epoch, or best by validation."
    )
    flags.DEFINE_boolean("early_exit", False, "Accuracy against MACs of early exits.")
    flags.DEFINE_string("exits_file", "", "For --early_exit; RUN/exits.json if empty.")
    flags.DEFINE_string(
        "output", "", "For --early_exit and --subsets: folder; RUN if empty."
    )


def main() -> None:
    """Measures and prints the figures of the run's task."""
    values = flags.FLAGS
    if values.early_exit and (values.subsets or values.which != "last"):
        raise UserError(
            "--early_exit measures the calibrated student of the last epoch: remove "
            "--subsets and --which=best."
        )
    check_finished_run(values.run_dir)
    start_tensorflow()
    from tf_mskd.runs import evaluation
    from tf_mskd.runs.subset_evaluation import evaluate_subsets, lines_of_subsets

    run = evaluation.FinishedRun(values.run_dir, values.data_dir)
    if values.early_exit:
        measured = evaluation.evaluate_early_exit(run, values.exits_file, values.output)
        lines = evaluation.early_exit_lines(measured, run.config.task)
        print("\n\n".join(lines))
        folder = values.output or values.run_dir
        print(f"wrote early_exit.json and early_exit.png to {folder}")
        return
    if values.subsets and run.task.one_class:
        found = evaluate_subsets(run, values.which, values.output)
        print("\n\n".join(lines_of_subsets(found)))
        print(
            f"wrote subsets.json and subsets.png to {values.output or values.run_dir}"
        )
        return
    table = evaluation.evaluate_run(run, values.which, values.subsets)
    print("\n".join(evaluation.lines_of(table, run.config.task)))


if __name__ == "__main__":
    cli.run(main, define, __doc__)
