"""exits.json: the calibrated exit policy; written by `tf_mskd.calibrate`."""

import os

from tf_mskd.early_exit.criteria import ANSWERS, CRITERIA
from tf_mskd.models import exit_names
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError, unknown_name

FORMAT = 2  # 1 had "rule" for "criterion", and accuracies in percent


def write_exits(
    path: str | os.PathLike, student_fingerprint: str, fitted: dict
) -> None:
    """Writes exits.json, atomically.

    Args:
        path: str or path.
        student_fingerprint: str, `saving.fingerprint` of the student.
        fitted: dict of `calibration.calibrate`.

    Raises:
        UserError: if it cannot be written.
    """
    files.write_json(path, {"format": FORMAT, "student": student_fingerprint, **fitted})


def read_exits(path: str | os.PathLike, student_fingerprint: str) -> dict:
    """Reads and checks exits.json.

    Args:
        path: str or path.
        student_fingerprint: str, `saving.fingerprint` of the student it is meant for.

    Returns:
        dict with "criterion", "answer", "temperatures" and "thresholds" (by exit,
        shallow to deep; the last exit's is 0.0), "target", "validation", "criteria",
        "calibration_error" and "curve" (20 entries with thresholds of their own).

    Raises:
        UserError: if there is no such file, it is damaged or of another format, names
            an unknown criterion or answer, or was fitted for another student.
    """
    exits = files.read_json(path)
    _check(exits, path)
    if exits["student"] != student_fingerprint:
        raise UserError(
            f"{path} was fitted for another student ({exits['student'][:12]} instead "
            f"of {student_fingerprint[:12]}): run tf_mskd.calibrate again."
        )
    return exits


def _check(exits, path):
    def need(claim, what):
        if not claim:
            raise UserError(
                f"{path} is damaged: it has no valid {what}. Run tf_mskd.calibrate "
                "again."
            )

    need(isinstance(exits, dict), "content")
    need(type(exits.get("format")) is int, '"format"')
    if exits["format"] != FORMAT:
        raise UserError(
            f"{path} has format {exits['format']}, this version reads {FORMAT}: run "
            "tf_mskd.calibrate again."
        )
    need(isinstance(exits.get("student"), str), '"student"')
    for key, known in (("criterion", CRITERIA), ("answer", ANSWERS)):
        if exits.get(key) not in known:
            raise unknown_name(f"{key} in {path}", exits.get(key), known)
    scales = exits.get("temperatures")
    need(_are_numbers(scales) and 0 not in scales.values(), '"temperatures"')
    names = list(scales)
    need(len(names) > 1 and names == exit_names(names), '"temperatures"')

    def are_thresholds(table):
        return _are_numbers(table) and list(table) == names and table[names[-1]] == 0

    need(are_thresholds(exits.get("thresholds")), '"thresholds"')
    curve = exits.get("curve")
    need(isinstance(curve, list) and curve, '"curve"')
    for point in curve:
        need(isinstance(point, dict), '"curve"')
        need(are_thresholds(point.get("thresholds")), '"curve"')
        need(_are_numbers({"budget": point.get("budget")}), '"curve"')


def _are_numbers(table):
    return isinstance(table, dict) and all(
        type(value) in (int, float) and 0 <= value < 1e9  # NaN is not
        for value in table.values()
    )
