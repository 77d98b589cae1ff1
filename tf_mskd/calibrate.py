"""Fits the exit policy of a finished run's student.

    python -m tf_mskd.calibrate --run_dir=runs/digits/mskd --max_accuracy_drop=0.5

On the run's validation split, and on training images that its --train_fraction left
out: one temperature per exit, and for each exit criterion one threshold per exit.
Prints how the criteria compare and writes RUN/exits.json, which is read by
`tf_mskd.evaluate --early_exit`. The test split plays no part.
"""

from absl import flags

from tf_mskd.early_exit.text import calibration_lines
from tf_mskd.runs import cli
from tf_mskd.runs.inputs import check_finished_run
from tf_mskd.utils.choices import ANSWERS, CRITERIA
from tf_mskd.utils.flag_errors import HIDDEN
from tf_mskd.utils.start import start_tensorflow


def define() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_string("run_dir", "", "Folder of a finished run; required.")
    flags.DEFINE_string("data_dir", "", "Data folder instead of the run's.")
    flags.DEFINE_enum(
        "criterion",
        "best",
        ["best", *CRITERIA],
        "Exit criterion; best: the best one on the held-out images.",
    )
    flags.DEFINE_alias("rule", "criterion", module_name=HIDDEN)
    flags.DEFINE_enum(
        "answer",
        "ensemble",
        list(ANSWERS),
        "Prediction: of the exits so far (ensemble), or of the exit alone.",
    )
    flags.DEFINE_float(
        "max_accuracy_drop",
        None,
        "Percentage points of accuracy that may be lost against the full pass, their "
        "standard error included, for the least MACs; 0 if no target is given.",
    )
    flags.DEFINE_float(
        "target_macs",
        None,
        "Mean MACs as a fraction of the full pass, for the highest accuracy.",
    )
    flags.DEFINE_integer(
        "images",
        20_000,
        "Held-out images to use at most: the validation split, then what "
        "--train_fraction left out of the training.",
        lower_bound=1,
    )
    flags.DEFINE_string("output", "", "File to write; RUN/exits.json if empty.")


def main() -> None:
    """Calibrates and prints the policy."""
    values = flags.FLAGS
    check_finished_run(values.run_dir)
    start_tensorflow()
    from tf_mskd.runs import evaluation

    run = evaluation.FinishedRun(values.run_dir, values.data_dir)
    fitted = evaluation.calibrate_run(
        run,
        criterion=values.criterion,
        answer=values.answer,
        max_accuracy_drop=values.max_accuracy_drop,
        target_macs=values.target_macs,
        images=values.images,
        output=values.output,
    )
    print("\n\n".join(calibration_lines(fitted)))
    print(f"wrote {values.output or run.paths.exits}")


if __name__ == "__main__":
    cli.run(main, define, __doc__)
