"""The names of outputs, "kind_k", and their order: exit_2 before exit_10.

Networks make outputs by these names, methods read them, reports sort them.
"""

import re

ROTATIONS = 4  # of each image; a rotation head has ROTATIONS * classes outputs
# outputs of each kind of auxiliary head
AUX_OUTPUTS = {
    "projection": ("projection",),
    "rotation": ("rotation",),
    "paraphraser": ("factor", "reconstruction"),
}
KINDS = (
    *("exit", "feature", "embedding", "preact", "gradient"),
    *sum(AUX_OUTPUTS.values(), ()),
)
OUTPUT = re.compile(rf"({'|'.join(KINDS)})_[1-9]\d*")


def is_kind(name: str, kind: str) -> bool:
    """Returns whether a name is "kind_1", "kind_2", ...

    Example:
        >>> is_kind("exit_2", "exit"), is_kind("exit_2_bn", "exit")
        (True, False)
    """
    return re.fullmatch(rf"{kind}_[1-9]\d*", name) is not None


def is_output(name: str) -> bool:
    """Returns whether a name is that of an output: "kind_k" of one of `KINDS`."""
    return OUTPUT.fullmatch(name) is not None


def number(name: str) -> int:
    """Returns the k of "kind_k"."""
    return int(name.rpartition("_")[2])


def numbered(names, kind: str) -> list[str]:
    """Returns the names "kind_1", "kind_2", ... among `names`, shallow to deep.

    Example:
        >>> numbered(["exit_2", "feature_1", "exit_10"], "exit")
        ['exit_2', 'exit_10']
    """
    return sorted((name for name in names if is_kind(name, kind)), key=number)


def by_number(name: str) -> list:
    """Sort key of any names in which numbers count as numbers, not as text.

    Example:
        >>> sorted(["exit_10_accuracy", "exit_2_accuracy"], key=by_number)
        ['exit_2_accuracy', 'exit_10_accuracy']
    """
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdigit() else part for part in parts]
