"""Measures the student of a finished run again, calibrates and exports it."""

import os
import pathlib

import numpy as np

from tf_mskd import models
from tf_mskd.deployment.checks import check_output
from tf_mskd.deployment.export import export_student
from tf_mskd.deployment.maps import export_maps
from tf_mskd.deployment.verification import NUM_IMAGES
from tf_mskd.early_exit import calibration
from tf_mskd.early_exit import measure as early_exit
from tf_mskd.early_exit.exits_file import read_exits, write_exits
from tf_mskd.early_exit.maps import draw_maps, maps_rows, measure_maps
from tf_mskd.early_exit.text import measurement_lines
from tf_mskd.models.saving import fingerprint
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.runs.result import read_result
from tf_mskd.tasks import create_task
from tf_mskd.tasks.meter import Meter
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.run_paths import RunPaths
from tf_mskd.utils.tables import as_text
from tf_mskd.utils.units import shown

NUM_CALIBRATION = 400  # training images that the ranges of int8 come from


def evaluate_run(
    run: FinishedRun, which: str = "last", subsets: bool = False
) -> dict[str, dict[str, float]]:
    """Measures the student of a finished run on its test split.

    Args:
        run: the finished run.
        which: "last" or "best" (by the validation split).
        subsets: also measure the ensemble of every smaller subset of the exits.

    Returns:
        dict, figure -> {name: value}, the task's main figure first: as "test" (or
        "test_best") of result.json, and with `subsets` names such as "exit_1+exit_3".

    Raises:
        UserError: if the run's data are missing or its result does not fit its student.
    """
    student = run.student(which)
    exits = models.exit_names(student)
    weights = read_result(run.paths.result).fitted_weights
    weights = weights if which == "last" else None
    if weights and set(weights) != set(exits):
        raise UserError(
            f"{run.paths.result} is damaged: fitted_weights is for "
            f"{', '.join(weights)}, the student has {', '.join(exits)}."
        )
    meter = Meter(run.task, run.config.ensemble, weights, subsets)
    return run.test().measure(student, meter).results()


def lines_of(table: dict[str, dict[str, float]], task: str) -> list[str]:
    """Returns the figures of `evaluate_run` as lines: one for each output.

    Example:
        >>> lines_of({"accuracy": {"exit_1": 0.5, "ensemble": 1.0}}, "classification")
        ['exit_1     50.00 %', 'ensemble  100.00 %']
    """
    unit_of = create_task(task).unit_of
    names = list(next(iter(table.values())))
    width = max(map(len, names))
    columns = [
        [shown(column[n], unit_of(figure)) for n in names]
        for figure, column in table.items()
    ]
    if len(columns) > 1:
        names = ["", *names]
        columns = [[f, *c] for f, c in zip(table, columns, strict=True)]
    columns = [[text.rjust(max(map(len, c))) for text in c] for c in columns]
    return [
        f"{name:{width}}  {'  '.join(row)}"
        for name, *row in zip(names, *columns, strict=True)
    ]


def evaluate_early_exit(
    run: FinishedRun, exits_file: str | os.PathLike = "", output: str | os.PathLike = ""
) -> dict:
    """Measures early exits on the test split of a finished, calibrated run.

    Args:
        run: the finished run.
        exits_file: path of the calibration; "" for exits.json in the run folder.
        output: path of the folder for early_exit.json and early_exit.png; "" for the
            run folder.

    Returns:
        dict of `early_exit.measure`.

    Raises:
        UserError: if the student is not calibrated or was calibrated with other
            weights, or the run's data are missing.

    Where the task answers at every position nothing is calibrated, and the dict is that
    of `maps.measure_maps`.
    """
    task = run.task
    if task.has_confidence:
        if exits_file:
            raise UserError(_no_exits_file(run, exits_file))
        return _early_exit_of_maps(run, task, output)
    _check_one_class(run)
    path = pathlib.Path(exits_file or run.paths.exits)
    if not path.exists():
        raise UserError(
            f"There is no {path}: calibrate first, with python -m tf_mskd.calibrate "
            f"--run_dir={run.paths.folder}."
        )
    student = run.student()
    calibrated = read_exits(path, fingerprint(student))
    own_macs = {n: models.count_macs(student, n) for n in models.exit_names(student)}
    macs = early_exit.macs_so_far(student)
    logits, labels = run.logits(student)
    measured = early_exit.measure(logits, labels, macs, own_macs, calibrated)
    paths = RunPaths(files.make_folder(output or run.paths.folder))
    files.write_json(paths.early_exit, measured)
    early_exit.draw(measured, paths.early_exit_plot)
    return measured


def early_exit_lines(measured: dict, task: str) -> list[str]:
    """Returns what `evaluate_early_exit` has measured as tables and lines."""
    known = create_task(task)
    if known.has_confidence:
        return [as_text(maps_rows(measured, known.unit))]
    return measurement_lines(measured)


def _early_exit_of_maps(run, task, output):
    student = run.student()
    batches = run.test().batches(student)
    measured = measure_maps(
        ((outputs, targets["label"]) for outputs, targets in batches),
        task,
        early_exit.macs_so_far(student),
    )
    paths = RunPaths(files.make_folder(output or run.paths.folder))
    files.write_json(paths.early_exit, measured)
    draw_maps(measured, task.unit, paths.early_exit_plot)
    return measured


def calibrate_run(
    run: FinishedRun,
    criterion: str = "best",
    answer: str = "ensemble",
    max_accuracy_drop: float | None = None,
    target_macs: float | None = None,
    images: int = 20_000,
    output: str | os.PathLike = "",
) -> dict:
    """Calibrates the student of a finished run and writes exits.json.

    Args:
        run: the finished run.
        criterion: see `calibration.calibrate`, as the next three.
        answer: "ensemble" or "exit".
        max_accuracy_drop: percentage points, or None.
        target_macs: fraction of the full pass, or None.
        images: held-out images to use at most, see `Data.held_out_stream`.
        output: path of the file; "" for exits.json in the run folder.

    Returns:
        dict, the result of `calibration.calibrate`.

    Raises:
        UserError: if the run held nothing out or its student has one exit; for a bad
            target; if data are missing.
    """
    _check_one_class(run)
    if not run.config.validation_fraction and run.config.train_fraction == 1:
        raise UserError(
            f"{run.paths.folder} was trained with --validation_fraction=0, so no "
            "examples are left to calibrate on: train with --validation_fraction=0.1."
        )
    calibration.check_target(max_accuracy_drop, target_macs)  # before the forward pass
    student = run.student()
    logits, labels = run.logits(student, held_out=images)
    fitted = calibration.calibrate(
        logits,
        labels,
        early_exit.macs_so_far(student),
        criterion=criterion,
        answer=answer,
        max_accuracy_drop=max_accuracy_drop,
        target_macs=target_macs,
    )
    write_exits(output or run.paths.exits, fingerprint(student), fitted)
    return fitted


def export_run(
    run: FinishedRun,
    output: str | os.PathLike,
    which: str = "last",
    exits_file: str | os.PathLike = "",
    **options,
) -> dict:
    """Exports the student of a finished run, see `export_student`.

    Args:
        run: the finished run.
        output: path of the folder to make.
        which: "last" or "best" (by the validation split).
        exits_file: path of thresholds; "" for the run's exits.json if there is one
            (which is that of the last epoch), else none.
        **options: further arguments of `export_student`.

    Returns:
        dict, the content of export.json.

    Raises:
        UserError: if the run's data are missing, and as `export_student` does.
    """
    task = run.task
    if not task.has_confidence:
        _check_one_class(run)
    check_output(output, options.get("overwrite", False))  # before the data are read
    if not exits_file and which == "last" and run.paths.exits.is_file():
        exits_file = run.paths.exits
    images = spread(run.source.test.images, NUM_IMAGES)
    options["calibration_images"] = spread(run.source.train.images, NUM_CALIBRATION)
    options["class_names"] = run.source.class_names
    student = run.student(which)
    if task.has_confidence:
        if exits_file:
            raise UserError(_no_exits_file(run, exits_file))
        return export_maps(student, task, output, images, **options)
    return export_student(
        student, output, images, exits_file=exits_file or None, **options
    )


def _check_one_class(run):
    if not run.task.one_class:
        raise UserError(
            "Early exits and exported files answer with one class, the task of "
            f"{run.paths.folder} is {run.config.task!r}: Keras exports its student, "
            "tf_mskd.load_model(run_dir).export(folder)."
        )


def _no_exits_file(run, path):
    return (
        f"--exits_file={path} holds thresholds of classes, the exits of "
        f"{run.paths.folder} answer at every pixel: leave it empty."
    )


def spread(images: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the images, evenly spaced: all classes of a sorted folder."""
    places = np.linspace(0, len(images) - 1, min(count, len(images)))
    return images[places.round().astype(int)]
