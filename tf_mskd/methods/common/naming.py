"""Finds the outputs a method needs among the names that the networks offer."""

from tf_mskd.utils.errors import UserError
from tf_mskd.utils.names import is_kind, number, numbered

__all__ = ["deepest", "every_exit", "from_deep_end", "is_kind", "number", "numbered"]

Pairs = dict[str, tuple[str, ...]]  # student output -> teacher outputs


def deepest(names: list[str], kind: str, role: str) -> str:
    """The deepest "kind_k" of a network, whose `role` is "student" or "teacher".

    Raises:
        UserError: if there is none.
    """
    found = numbered(names, kind)
    if not found:
        raise UserError(
            f"The method reads {kind}_k of the {role}, which makes only "
            f"{', '.join(names) or 'nothing'}. Build it with tf_mskd.create_model, or "
            "with tf_mskd.add_exits and taps."
        )
    return found[-1]


def every_exit(student: list[str], teacher: list[str]) -> Pairs:
    """Pairs every student exit with the teacher's last one.

    Returns:
        dict, student exit -> (teacher exit,), shallow to deep.

    Raises:
        UserError: if the teacher has no exit.

    Example:
        >>> every_exit(["exit_1", "exit_2"], ["exit_3"])
        {'exit_1': ('exit_3',), 'exit_2': ('exit_3',)}
    """
    teacher_exit = deepest(teacher, "exit", "teacher")
    return {name: (teacher_exit,) for name in numbered(student, "exit")}


def from_deep_end(student: list[str], teacher: list[str], kind: str) -> Pairs:
    """Pairs all "kind_k" of both networks, the deepest with the deepest.

    Outputs of the longer side that are left over at the shallow end stay unpaired.

    Returns:
        dict, student output -> (teacher output,), shallow to deep.

    Raises:
        UserError: if a network has no such output.

    Example:
        >>> from_deep_end(["feature_1", "feature_2"], ["feature_1"], "feature")
        {'feature_2': ('feature_1',)}
    """
    deepest(student, kind, "student")
    deepest(teacher, kind, "teacher")
    pairs = zip(
        reversed(numbered(student, kind)),
        reversed(numbered(teacher, kind)),
        strict=False,
    )
    return {s: (t,) for s, t in reversed(list(pairs))}
