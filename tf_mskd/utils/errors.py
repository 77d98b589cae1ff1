"""The one exception for mistakes a user can mend, and the nearest valid name."""

import difflib
import typing
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake the user can mend.

    The message is one line: what was expected, what arrived, what to do. Entry points
    print it without a traceback and exit with code 2; in Python it is a `ValueError`.

    Args:
        message: str; characters that a file's name or content may bring along to break
            the line or steer the terminal are escaped.
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Returns the text with what would break the line or steer a terminal escaped."""
    escaped = {c: c.encode("unicode_escape").decode() for c in set(text)}
    return "".join(c if c.isprintable() else escaped[c] for c in text)


def unknown_name(kind: str, name: typing.Any, known: Iterable[str]) -> UserError:
    """Returns the `UserError` for a name that is not among the known ones.

    Args:
        kind: str, what the name stands for, such as "model".
        name: the value that arrived.
        known: iterable of str, the valid names.

    Returns:
        `UserError` that shows the name, the nearest valid one and the whole list.

    Example:
        >>> str(unknown_name("model", "resnet11", ["resnet10", "vgg8"]))
        "Unknown model 'resnet11'; did you mean 'resnet10'? Known: resnet10, vgg8."
    """
    known = sorted(known)
    listed = ", ".join(known)
    return UserError(f"Unknown {kind} {name!r}{nearest(name, known)} Known: {listed}.")


def nearest(name: typing.Any, known: Iterable[str], cutoff: float = 0.4) -> str:
    """Returns the end of a sentence: the nearest valid name, if there is one.

    Args:
        name: the value that arrived.
        known: iterable of str, the valid names.
        cutoff: float in [0, 1], how alike the nearest one must be.

    Example:
        >>> nearest("dnse", ["dense", "linear"]), nearest("x", ["dense", "linear"])
        ("; did you mean 'dense'?", '.')
    """
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else "."
