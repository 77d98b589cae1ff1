"""The small languages of settings: text in, tuples and dicts out, and back.

Each reads a str, raises `UserError` for one that it cannot read, and writes a value
back as the str that reads as it.
"""

import dataclasses
import typing
from collections.abc import Callable

from tf_mskd.utils.choices import AUGMENTATIONS
from tf_mskd.utils.errors import UserError, unknown_name


@dataclasses.dataclass(frozen=True)
class Language:
    """How a setting is read and written.

    Args:
        read: function of the setting's name and a str, returns the value.
        write: function of the value, returns the str.
    """

    read: Callable[[str, str], typing.Any]
    write: Callable[[typing.Any], str]


def numbers(name: str, text: str) -> tuple[int, ...]:
    """Reads "1,2,3"; empty text gives ().

    Example:
        >>> numbers("lr_drops", "150,180,210")
        (150, 180, 210)
    """
    try:
        return tuple(int(part) for part in text.split(",") if text)
    except ValueError:
        raise UserError(
            f"--{name} must be numbers such as 1,2,3, got {text!r}."
        ) from None


def exits(name: str, text: str) -> str | tuple[int, ...]:
    """Reads "all", "last" or numbers of exits."""
    return text if text in ("all", "last") else numbers(name, text)


def weights(name: str, text: str) -> dict[str, float]:
    """Reads "ce:0.1,kd:0.9"; empty text gives {}.

    Example:
        >>> weights("term_weights", "ce:0.1,kd:0.9")
        {'ce': 0.1, 'kd': 0.9}
    """
    try:
        return {key.strip(): float(value) for key, value in _pairs(text)}
    except ValueError:
        raise UserError(
            f"--{name} must be pairs such as ce:0.1,kd:0.9, got {text!r}."
        ) from None


def exit_map(name: str, text: str) -> dict[int, int]:
    """Reads "1:2,2:3", student exit to teacher exit; empty text gives {}.

    Example:
        >>> exit_map("exit_map", "1:2,2:3")
        {1: 2, 2: 3}
    """
    try:
        return {int(student): int(teacher) for student, teacher in _pairs(text)}
    except ValueError:
        raise UserError(
            f"--{name} must be pairs student:teacher such as 1:2,2:3, got {text!r}."
        ) from None


def augmentations(name: str, text: str) -> tuple[str, ...]:
    """Reads "crop,flip"; empty text gives (), "none" gives ("none",)."""
    names = tuple(filter(None, (part.strip() for part in text.split(","))))
    for augmentation in names:
        if augmentation not in AUGMENTATIONS:
            raise unknown_name(f"--{name}", augmentation, AUGMENTATIONS)
    return names


def arguments(name: str, text: str) -> dict[str, str]:
    """Reads "preset=hsakd,temperature=3" into a dict of str; `typed` types them.

    A value may hold a comma if no "name=" follows it.

    Example:
        >>> arguments("method_args", "exit_map=1:2,2:3,temperature=3")
        {'exit_map': '1:2,2:3', 'temperature': '3'}
    """
    parts = []
    for part in text.split(",") if text else ():
        if "=" in part or not parts:
            parts.append(part)
        else:
            parts[-1] += "," + part
    if not all("=" in part for part in parts):
        raise UserError(f"--{name} must be name=value pairs, got {text!r}.")
    split = (part.split("=", 1) for part in parts)
    return {key.strip(): value for key, value in split}


def typed(
    name: str, values: dict[str, str], defaults: dict[str, typing.Any]
) -> dict[str, typing.Any]:
    """Types arguments by the defaults of what takes them.

    Args:
        name: str, the setting, for the error.
        values: dict of `arguments`.
        defaults: dict, known name -> default value; None takes a float. Unknown names
            stay str: what takes them refuses them by name.

    Raises:
        UserError: if a value cannot be read as its default's type.

    Example:
        >>> typed("method_args", {"temperature": "3"}, {"temperature": 4.0})
        {'temperature': 3.0}
    """
    return {
        key: _typed(name, key, value, defaults.get(key, ""))
        for key, value in values.items()
    }


def boolean(name: str, text: str) -> bool:
    """Reads "true" or "false"."""
    if text.lower() not in ("true", "false"):
        raise UserError(f"--{name} must be true or false, got {text!r}.")
    return text.lower() == "true"


def _typed(name, key, value, default):
    kind = float if default is None else type(default)
    if kind is bool:
        kind = {"true": True, "false": False}.__getitem__
        value = value.lower()
    try:
        return kind(value)
    except (ValueError, KeyError):
        raise UserError(
            f"--{name}: {key} takes a value like {default!r}, got {value!r}."
        ) from None


def _pairs(text):
    return [part.split(":") for part in text.split(",") if text]


def _joined(values):
    return values if isinstance(values, str) else ",".join(map(str, values))


def _mapped(separator):
    def write(values):
        return ",".join(f"{key}{separator}{value}" for key, value in values.items())

    return write


NUMBERS = Language(numbers, _joined)
EXITS = Language(exits, _joined)
WEIGHTS = Language(weights, _mapped(":"))
EXIT_MAP = Language(exit_map, _mapped(":"))
AUGMENTATION = Language(augmentations, _joined)
ARGUMENTS = Language(arguments, _mapped("="))
