"""Measures a finished run again: every exit, the ensemble and, if asked, all subsets.

    python -m tf_mskd.evaluate --run_dir=runs/digits/mskd --subsets
    python -m tf_mskd.evaluate --run_dir=runs/digits/mskd --early_exit

--early_exit measures what leaving early costs and saves, under the thresholds that
`tf_mskd.calibrate` has fitted, and writes early_exit.json and early_exit.png.
"""

import pathlib

from absl import flags

from tf_mskd.models import ensemble as ensembles
from tf_mskd.runs import cli
from tf_mskd.runs.inputs import check_finished_run
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError


def define():
    """Defines the flags of the command."""
    flags.DEFINE_string("run_dir", "", "Folder of a finished run; required.")
    flags.DEFINE_string("data_dir", "", "Data folder instead of the run's.")
    flags.DEFINE_boolean("subsets", False, "Also every subset of the exits.")
    flags.DEFINE_enum(
        "which", "last", ["last", "best"], "Student: last epoch, or best by validation."
    )
    flags.DEFINE_boolean("early_exit", False, "Accuracy against MACs, leaving early.")
    flags.DEFINE_string("exits_file", "", "For --early_exit; RUN/exits.json if empty.")
    flags.DEFINE_string("output", "", "For --early_exit: folder; RUN if empty.")


def evaluate_run(run_dir, data_dir="", which="last", subsets=False):
    """Runs the student of a finished run over its test split.

    Args:
        run_dir: str or path of the run folder.
        data_dir: str, folder of the prepared data instead of the run's own.
        which: "last" or "best" (by the validation split).
        subsets: bool, also measure the vote of every subset of the exits.

    Returns:
        dict, name -> accuracy in percent: as "test" (or "test_best") of result.json,
        and with `subsets` names such as "exit_1+exit_3" for mean logits.

    Raises:
        UserError: if the folder holds no finished run or its data are missing.
    """
    from tf_mskd.runs import experiment
    from tf_mskd.runs.finished_run import FinishedRun
    from tf_mskd.runs.run_folder import read_result

    run = FinishedRun(run_dir, data_dir)
    folder, config = run.folder, run.config
    logits, labels = run.logits(run.student(which))
    weights = read_result(folder / "result.json").get("fitted_weights")
    weights = weights if which == "last" else None
    if weights and set(weights) != set(logits):
        raise UserError(
            f"{folder / 'result.json'} is damaged: fitted_weights is for "
            f"{', '.join(weights)}, the student has {', '.join(logits)}."
        )
    table = experiment.test_table(logits, labels, config.ensemble, weights)
    if subsets:
        for names in ensembles.subsets(list(logits)):
            chosen = {name: logits[name] for name in names}
            table["+".join(names)] = ensembles.accuracies(chosen, labels)["mean_logits"]
    return table


def evaluate_early_exit(run_dir, data_dir="", exits_file="", output=""):
    """Measures early exits on the test split of a finished, calibrated run.

    Args:
        run_dir: str or path of the run folder.
        data_dir: str, folder of the prepared data instead of the run's own.
        exits_file: str or path of the calibration; "" for exits.json in the run folder.
        output: str or path of the folder for early_exit.json and early_exit.png; ""
            for the run folder.

    Returns:
        dict of `early_exit.measure`.

    Raises:
        UserError: if the folder holds no finished run, its student is not calibrated
            or was calibrated with other weights, or its data are missing.
    """
    from tf_mskd import models
    from tf_mskd.early_exit import measure as early_exit
    from tf_mskd.early_exit.exits_file import read_exits
    from tf_mskd.models.saving import fingerprint
    from tf_mskd.runs.finished_run import FinishedRun

    run = FinishedRun(run_dir, data_dir)
    path = pathlib.Path(exits_file or run.folder / "exits.json")
    if not path.exists():
        raise UserError(
            f"There is no {path}: calibrate first, with python -m tf_mskd.calibrate "
            f"--run_dir={run.folder}."
        )
    student = run.student()
    calibrated = read_exits(path, fingerprint(student))
    own_macs = {n: models.count_macs(student, n) for n in models.exit_names(student)}
    measured = early_exit.measure(
        *run.logits(student), early_exit.macs_so_far(student), own_macs, calibrated
    )
    output = files.make_folder(output or run.folder)
    files.write_json(output / "early_exit.json", measured)
    early_exit.draw(measured, output / "early_exit.png")
    return measured


def main():
    """Prints the accuracies."""
    values = flags.FLAGS
    check_finished_run(values.run_dir)
    if values.early_exit:
        print_early_exit(values)
        return
    table = evaluate_run(values.run_dir, values.data_dir, values.which, values.subsets)
    width = max(map(len, table))
    for name, value in table.items():
        print(f"{name:{width}}  {value:6.2f} %")


def print_early_exit(values):
    """Measures and prints early exits.

    Args:
        values: parsed flags.

    Raises:
        UserError: as `evaluate_early_exit`; if other measurements are asked as well.
    """
    from tf_mskd.early_exit.measure import as_lines

    if values.subsets or values.which != "last":
        raise UserError(
            "--early_exit measures the calibrated student of the last epoch: leave out "
            "--subsets and --which=best."
        )
    measured = evaluate_early_exit(
        values.run_dir, values.data_dir, values.exits_file, values.output
    )
    print("\n\n".join(as_lines(measured)))
    folder = values.output or values.run_dir
    print(f"wrote early_exit.json and early_exit.png to {folder}")


if __name__ == "__main__":
    cli.run(main, define, __doc__)
