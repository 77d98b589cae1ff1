"""Fits when examples may leave a finished run's student at an early exit.

    python -m tf_mskd.calibrate --run_dir=runs/digits/mskd --max_accuracy_drop=0.5

On the run's validation split, and on training images that its --train_fraction left
out: one temperature per exit, and for each rule one threshold per exit. Prints how the
rules compare and writes RUN/exits.json, which `tf_mskd.evaluate --early_exit` reads.
The test split plays no part.
"""

import inspect

from absl import flags

from tf_mskd.early_exit.rules import ANSWERS, RULES
from tf_mskd.runs import cli
from tf_mskd.runs.inputs import check_finished_run
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.tables import as_text, count_text


def define():
    """Defines the flags of the command."""
    flags.DEFINE_string("run_dir", "", "Folder of a finished run; required.")
    flags.DEFINE_string("data_dir", "", "Data folder instead of the run's.")
    flags.DEFINE_enum(
        "rule", "best", ["best", *RULES], "When to leave; best: on validation."
    )
    flags.DEFINE_enum(
        "answer",
        "ensemble",
        list(ANSWERS),
        "Of the exits so far, or the exit's own.",
    )
    flags.DEFINE_float(
        "max_accuracy_drop",
        None,
        "Points of validation accuracy that may be lost against the full pass, their "
        "standard error included, for the least MACs; 0 if no target is given.",
    )
    flags.DEFINE_float(
        "target_macs",
        None,
        "Mean MACs as a share of the full pass, for the highest accuracy.",
    )
    flags.DEFINE_integer(
        "images",
        20_000,
        "Held-out images to use at most: the validation split, then what "
        "--train_fraction left out of the training.",
        lower_bound=1,
    )
    flags.DEFINE_string("output", "", "File to write; RUN/exits.json if empty.")


def calibrate_run(
    run_dir,
    rule="best",
    answer="ensemble",
    max_accuracy_drop=None,
    target_macs=None,
    images=20_000,
    data_dir="",
    output="",
):
    """Calibrates the student of a finished run and writes exits.json.

    Args:
        run_dir: str or path of the run folder.
        rule, answer, max_accuracy_drop, target_macs: see `calibration.calibrate`.
        images: int > 0, held-out images to use at most, see `Data.held_out_stream`.
        data_dir: str, folder of the prepared data instead of the run's own.
        output: str or path of the file; "" for exits.json in the run folder.

    Returns:
        dict, the result of `calibration.calibrate`.

    Raises:
        UserError: if the folder holds no finished run, or one that held nothing out or
            has one exit; for a bad target; if data are missing.
    """
    from tf_mskd.early_exit import calibration
    from tf_mskd.early_exit.exits_file import write_exits
    from tf_mskd.early_exit.measure import macs_so_far
    from tf_mskd.models.saving import fingerprint
    from tf_mskd.runs.finished_run import FinishedRun

    run = FinishedRun(run_dir, data_dir)
    if not run.config.validation_fraction and run.config.train_fraction == 1:
        raise UserError(
            f"{run.folder} was trained with --validation_fraction=0, so no examples "
            "are left to calibrate on: train with --validation_fraction=0.1."
        )
    calibration.check_target(max_accuracy_drop, target_macs)  # before the forward pass
    student = run.student()
    fitted = calibration.calibrate(
        *run.logits(student, held_out=images),
        macs_so_far(student),
        rule=rule,
        answer=answer,
        max_accuracy_drop=max_accuracy_drop,
        target_macs=target_macs,
    )
    output = output or run.folder / "exits.json"
    write_exits(output, fingerprint(student), fitted)
    return fitted


def as_lines(fitted):
    """Says the result of `calibrate_run`: lines for the terminal."""
    errors = [["exit", "temperature", "calibration error", "calibrated"]]
    for name, error in fitted["calibration_error"].items():
        scale = fitted["temperatures"].get(name)
        scale = "" if scale is None else f"{scale:.3f}"
        numbers = [f"{100 * error[when]:.2f} %" for when in ("before", "after")]
        errors.append([name.replace("_", " "), scale, *numbers])
    rules = [["rule", "accuracy", "share of MACs", "target"]]
    for name, values in fitted["rules"].items():
        met = "met" if values["met"] else "missed"
        share = f"{100 * values['macs_share']:.1f} %"
        rules.append([name, f"{values['accuracy']:.2f}", share, met])
    held_out = fitted["validation"]
    exits = [["exit", "threshold", "leave there"]]
    for name, threshold in fitted["thresholds"].items():
        rate = f"{100 * held_out['exit_rates'][name]:.1f} %"
        exits.append([name.replace("_", " "), threshold_text(threshold), rate])
    lines = [as_text(errors), as_text(rules), as_text(exits)]
    lines.append(
        f"rule {fitted['rule']}, answer by {fitted['answer']}: accuracy "
        f"{held_out['accuracy']:.2f} % of {held_out['examples']:,} held-out images "
        f"(full pass {held_out['full_accuracy']:.2f} %, standard error of the "
        f"difference {held_out['standard_error']:.2f}) "
        f"for {100 * held_out['macs_share']:.1f} % of its MACs "
        f"({count_text(round(held_out['mean_macs']))})"
    )
    if not fitted["target"]["met"]:
        lines.append(
            f"--target_macs={fitted['target']['target_macs']} cannot be reached: to "
            f"leave at exit 1 costs {100 * fitted['curve'][0]['budget']:.1f} % of the "
            "MACs of a full pass, and that is what these thresholds come to."
        )
    return lines


def threshold_text(value):
    """Writes a threshold; one above 1 is one that none reaches."""
    return "never" if value > 1 else f"{value:.4f}"


def main():
    """Calibrates and prints what came out."""
    values = flags.FLAGS
    check_finished_run(values.run_dir)
    arguments = inspect.signature(calibrate_run).parameters  # each has its flag
    fitted = calibrate_run(**{name: getattr(values, name) for name in arguments})
    print("\n\n".join(as_lines(fitted)))
    print(f"wrote {values.output or values.run_dir.rstrip('/') + '/exits.json'}")


if __name__ == "__main__":
    cli.run(main, define, __doc__)
