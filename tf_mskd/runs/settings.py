"""One setting of a run as a field: its bounds, and its text in a flag and back."""

import dataclasses
import os
import typing

from tf_mskd.runs import parsers
from tf_mskd.utils.errors import UserError, nearest


def setting(
    group, default, text, *, low=None, high=None, choices=None, free=False, form=None
):
    """Returns a dataclass field with what flags and checks need of it.

    Args:
        group: str, the group of the flag.
        default: the value unless another is given.
        text: str, the help.
        low, high: bounds of a number, or None.
        choices: collection of the values that it may have, or None.
        free: bool, whether it may change when a run is resumed.
        form: `parsers` object that reads and writes values of several parts, or None.
    """
    metadata = {
        "group": group,
        "help": text,
        "low": low,
        "high": high,
        "choices": choices,
        "free": free,
        "language": form,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check_bounds(field: dataclasses.Field, value: typing.Any) -> None:
    """Raises `UserError` if a value is none that a field may have."""
    low, high = field.metadata["low"], field.metadata["high"]
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise UserError(
            f"--{field.name} must be one of {', '.join(choices)}, got {value!r}"
            f"{nearest(value, choices)}"
        )
    above = low is None or value >= low  # false for "not a number" too
    if not (above and (high is None or value <= high)):
        raise UserError(
            f"--{field.name} must be in [{low}, {'inf' if high is None else high}], "
            f"got {value}."
        )


def read_setting(field: dataclasses.Field, text: str) -> typing.Any:
    """Reads the value of a field from its text in a flag.

    Raises:
        UserError: if the text cannot be read.
    """
    language = field.metadata["language"]
    if language:
        return language.read(field.name, text)
    return parsers.scalar(field.name, typing.cast(type, field.type), text)


def text_of(field: dataclasses.Field, value: typing.Any) -> str:
    """Returns the text that `read_setting` reads as this value.

    Raises:
        UserError: if a value of several parts is neither collection nor text, or text
            is none.
    """
    language, kind = field.metadata["language"], typing.cast(type, field.type)
    if kind is bool:
        return str(value).lower()
    if kind in (int, float):
        return str(value)
    try:
        return language.write(value) if language else os.fspath(value)
    except (TypeError, AttributeError):
        expected = f"a {kind}, or its text" if language else "text"
        raise UserError(f"--{field.name} takes {expected}, got {value!r}.") from None
