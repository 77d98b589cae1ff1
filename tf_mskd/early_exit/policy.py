"""What a file has to know to let an image leave early: rule, scales, thresholds."""

import dataclasses

from tf_mskd.early_exit.exits_file import read_exits
from tf_mskd.models.saving import fingerprint

NEVER = 2.0  # a threshold that no confidence reaches


@dataclasses.dataclass(frozen=True)
class ExitPolicy:
    """The leave rule of a student, see `exit_rules`.

    Args:
        rule: str, one of `exit_rules.RULES`.
        answer: str, one of `exit_rules.ANSWERS`.
        temperatures: dict, exit name -> float > 0, shallow to deep.
        thresholds: dict, exit name -> float >= 0, used where a caller gives none.
    """

    rule: str
    answer: str
    temperatures: dict
    thresholds: dict


def load_policy(student, names, exits_file=None):
    """The leave rule of the first exits of a student.

    Args:
        student: the functional model that was calibrated.
        names: list of str, the exits that are exported, shallow to deep.
        exits_file: path of its exits.json, or None: largest probability of the vote,
            temperatures 1, and thresholds that no image reaches.

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
        exits["rule"],
        exits["answer"],
        {name: float(exits["temperatures"][name]) for name in names},
        {name: float(exits["thresholds"][name]) for name in names},
    )
