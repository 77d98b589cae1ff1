"""The exit policy of a student: criterion, temperatures and thresholds."""

import dataclasses
import os
from collections.abc import Sequence

import keras

from tf_mskd.early_exit.exits_file import read_exits
from tf_mskd.early_exit.thresholds import NEVER
from tf_mskd.models.saving import fingerprint


@dataclasses.dataclass(frozen=True)
class ExitPolicy:
    """When the examples of a student exit, and what is returned for them.

    Args:
        criterion: str, one of `criteria.CRITERIA`.
        answer: str, one of `criteria.ANSWERS`.
        temperatures: dict, exit name -> float > 0, shallow to deep.
        thresholds: dict, exit name -> float >= 0, used where a caller passes none.
    """

    criterion: str
    answer: str
    temperatures: dict[str, float]
    thresholds: dict[str, float]


def load_policy(
    student: keras.Model,
    names: Sequence[str],
    exits_file: str | os.PathLike | None = None,
) -> ExitPolicy:
    """Loads the exit policy of the first exits of a student.

    Args:
        student: the functional model that was calibrated.
        names: list of str, the exits that are exported, shallow to deep.
        exits_file: path of its exits.json, or None: largest probability of the
            ensemble, temperatures 1, and thresholds that no image reaches.

    Returns:
        `ExitPolicy`.

    Raises:
        UserError: if the file is missing, damaged or was fitted for another student.
    """
    if exits_file is None:
        ones, never = ({name: v for name in names} for v in (1.0, NEVER))
        return ExitPolicy("max_probability", "ensemble", ones, never)
    exits = read_exits(exits_file, fingerprint(student))
    return ExitPolicy(
        exits["criterion"],
        exits["answer"],
        {name: float(exits["temperatures"][name]) for name in names},
        {name: float(exits["thresholds"][name]) for name in names},
    )
