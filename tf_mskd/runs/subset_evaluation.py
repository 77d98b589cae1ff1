"""Which exits of a finished run should vote, and how far they agree."""

import os

from tf_mskd import models
from tf_mskd.early_exit.agreement import agreement
from tf_mskd.early_exit.subset_text import agreement_lines, subset_lines
from tf_mskd.early_exit.subsets import (
    check_count,
    draw_subsets,
    measure_subsets,
    subset_costs,
)
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.run_paths import RunPaths


def evaluate_subsets(
    run: FinishedRun, which: str = "last", output: str | os.PathLike = ""
) -> dict:
    """Measures every subset of the exits of a finished run, and their agreement.

    Args:
        run: the finished run.
        which: student, "last" or "best" (by the validation split).
        output: path of the folder for subsets.json and subsets.png; "" for the run
            folder.

    Returns:
        dict of `measure_subsets`, and "agreement": role, "student" or "teacher" -> dict
        of `agreement` on the test split. A teacher that cannot be read is left out,
        and a line says so.

    Raises:
        UserError: if answers of the run's task are not one class, for a student of
            more than `subsets.MOST` exits, or if the run's data are missing.
    """
    if not run.task.one_class:
        raise UserError(
            "--subsets compares answers of one class, the task of "
            f"{run.paths.folder} is {run.config.task!r}: evaluate without it, which "
            "measures every exit and the ensemble."
        )
    student = run.student(which)
    check_count(models.exit_names(student))
    test, held_out = run.test(), run.validation()
    tested = test.logits(student)
    measured = measure_subsets(
        tested,
        subset_costs(student),
        run.config.ensemble,
        held_out.logits(student) if held_out else None,
    )
    measured["agreement"] = {"student": agreement(*tested)}
    teacher = _teacher(run, student)
    if teacher is not None:
        measured["agreement"]["teacher"] = agreement(*test.logits(teacher))
    paths = RunPaths(files.make_folder(output or run.paths.folder))
    files.write_json(paths.subsets, measured)
    draw_subsets(measured, paths.subsets_plot)
    return measured


def lines_of_subsets(measured: dict) -> list[str]:
    """Returns what `evaluate_subsets` has measured as tables and lines."""
    return [*subset_lines(measured), *agreement_lines(measured["agreement"])]


def _teacher(run, student):
    """The run's teacher; None where it cannot be read, which a line says."""
    try:
        return run.teacher(student)
    except UserError as error:
        print(f"Without the teacher: {error}")
        return None
