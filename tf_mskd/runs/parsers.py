"""The small languages of settings: text in, tuples and dicts out, and back.

Each reads a str, raises `UserError` for one that it cannot read, and writes a value
back as the str that reads as it.
"""

import dataclasses
import typing
from collections.abc import Callable, Iterable

from tf_mskd.utils.choices import AUGMENTATIONS
from tf_mskd.utils.errors import UserError, unknown_name

BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}
BASES = {"0x": 16, "0o": 8}
KINDS = {bool: "true or false", int: "an integer", float: "a number"}


@dataclasses.dataclass(frozen=True)
class Language:
    """How a setting is read and written.

    Args:
        read: function of the setting's name and a str, returns the value.
        write: function of the value, returns the str.
    """

    read: Callable[[str, str], typing.Any]
    write: Callable[[typing.Any], str]


def scalar(name: str, kind: type, text: str) -> bool | int | float | str:
    """Reads a value of one part, the same in flags, arguments of methods and `tune`.

    Args:
        name: str, the setting, for the error.
        kind: bool, int, float or str.
        text: str; for bool also yes, no, on, off, 1, 0 and first letters.

    Raises:
        UserError: if the text is none.

    Example:
        >>> scalar("nesterov", bool, "yes"), scalar("epochs", int, "7")
        (True, 7)
    """
    try:
        return _scalar(kind, text)
    except ValueError:
        raise UserError(f"--{name} must be {KINDS[kind]}, got {text!r}.") from None


def _scalar(kind, text):
    if kind is bool:
        if text.strip().lower() not in BOOLEANS:
            raise ValueError(text)
        return BOOLEANS[text.strip().lower()]
    if kind is int:
        return int(text, BASES.get(text[:2], 10))  # as absl reads flags
    return kind(text)


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


def bounds(name: str, text: str) -> tuple[float, ...]:
    """Reads "0.08,1", two numbers of which the first is not the larger.

    Example:
        >>> bounds("crop_scale", "0.08,1")
        (0.08, 1.0)
    """
    try:
        low, high = (float(part) for part in text.split(","))
        if not low <= high:
            raise ValueError(text)
    except ValueError:
        raise UserError(
            f"--{name} must be two numbers such as 0.08,1, the smaller first, got "
            f"{text!r}."
        ) from None
    return low, high


def steps(name: str, text: str) -> tuple[int, ...]:
    """Reads "101,120", the first step and the last, counted from 1; empty gives ().

    Example:
        >>> steps("profile_steps", "101,120")
        (101, 120)
    """
    if not text:
        return ()
    try:
        first, last = (int(part) for part in text.split(","))
        if not 1 <= first <= last:
            raise ValueError(text)
    except ValueError:
        raise UserError(
            f"--{name} must be the first step and the last, counted from 1, such as "
            f"101,120, got {text!r}."
        ) from None
    return first, last


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
        pairs = [(key.strip(), float(value)) for key, value in _pairs(text)]
    except ValueError:
        raise UserError(
            f"--{name} must be pairs such as ce:0.1,kd:0.9, got {text!r}."
        ) from None
    return _once(name, pairs)


def exit_map(name: str, text: str) -> dict[int, int]:
    """Reads "1:2,2:3", student exit to teacher exit; empty text gives {}.

    Example:
        >>> exit_map("exit_map", "1:2,2:3")
        {1: 2, 2: 3}
    """
    try:
        pairs = [(int(student), int(teacher)) for student, teacher in _pairs(text)]
    except ValueError:
        raise UserError(
            f"--{name} must be pairs student:teacher such as 1:2,2:3, got {text!r}."
        ) from None
    return _once(name, pairs)


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
    return _once(name, [(key.strip(), value) for key, value in split])


def query(name: str, text: str) -> dict[str, str]:
    """Reads "alpha=0.35&weights=PATH" into a dict of str; `typed` types them.

    Example:
        >>> query("model", "alpha=0.35&weights=a,b.h5")
        {'alpha': '0.35', 'weights': 'a,b.h5'}
    """
    parts = text.split("&") if text else []
    if not all("=" in part for part in parts):
        raise UserError(f"--{name} must have name=value&... after ?, got {text!r}.")
    return _once(name, [part.split("=", 1) for part in parts])


def layer_names(name: str, text: str) -> tuple[str, ...]:
    """Reads "block_5_add,block_12_add"; empty text gives ()."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def typed(
    name: str, values: dict[str, str], defaults: dict[str, typing.Any]
) -> dict[str, typing.Any]:
    """Types arguments by the defaults of what takes them.

    Args:
        name: str, the setting, for the error.
        values: dict of `arguments`.
        defaults: dict, known name -> default value; None takes a float or "none".
            Unknown names stay str: what takes them refuses them by name.

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


def _typed(name, key, value, default):
    if default is None and value.strip().lower() == "none":
        return None
    try:
        return _scalar(float if default is None else type(default), value)
    except ValueError:
        raise UserError(
            f"--{name}: {key} takes a value like {default!r}, got {value!r}."
        ) from None


def _pairs(text):
    return [part.split(":") for part in text.split(",") if text]


def _once(name: str, pairs: Iterable) -> dict:
    """The pairs as a dict; a key that comes twice would be lost without a word."""
    found: dict = {}
    for key, value in pairs:
        if key in found:
            raise UserError(f"--{name} names {key} twice: drop one of them.")
        found[key] = value
    return found


def _joined(values):
    return values if isinstance(values, str) else ",".join(map(str, values))


def _mapped(separator):
    def write(values):
        return ",".join(f"{key}{separator}{_part(v)}" for key, v in values.items())

    return write


def _part(value):
    """A value of an argument as text: a collection as its own setting would be."""
    if isinstance(value, dict):
        return _mapped(":")(value)
    return _joined(value) if isinstance(value, list | tuple) else str(value)


LAYERS = Language(layer_names, _joined)
NUMBERS = Language(numbers, _joined)
BOUNDS = Language(bounds, _joined)
STEPS = Language(steps, _joined)
EXITS = Language(exits, _joined)
WEIGHTS = Language(weights, _mapped(":"))
EXIT_MAP = Language(exit_map, _mapped(":"))
AUGMENTATION = Language(augmentations, _joined)
ARGUMENTS = Language(arguments, _mapped("="))
