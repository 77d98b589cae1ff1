"""Checks of a method's arguments: one line says what was expected and what arrived."""

import numbers
import typing
from collections.abc import Collection

from tf_mskd.utils.errors import UserError, unknown_name


def check_above(bound: float, **values: typing.Any) -> None:
    """Raises `UserError` unless all values are numbers above the bound.

    Example:
        >>> check_above(0, temperature=-1)
        Traceback (most recent call last):
        tf_mskd.utils.errors.UserError: temperature must be > 0, got -1.
    """
    for name, value in values.items():
        if not (_is_number(value) and value > bound):
            raise UserError(f"{name} must be > {bound}, got {value!r}.")


def check_positive(**values: typing.Any) -> None:
    """Raises `UserError` unless all values are numbers above 0."""
    check_above(0, **values)


def check_at_least(bound: float, **values: typing.Any) -> None:
    """Raises `UserError` unless all values are numbers of at least the bound."""
    for name, value in values.items():
        if not (_is_number(value) and value >= bound):
            raise UserError(f"{name} must be >= {bound}, got {value!r}.")


def check_fraction(**values: typing.Any) -> None:
    """Raises `UserError` unless all values are numbers from 0 to 1."""
    for name, value in values.items():
        if not (_is_number(value) and 0 <= value <= 1):
            raise UserError(f"{name} must be in [0, 1], got {value!r}.")


def check_choice(known: Collection[str], **values: typing.Any) -> None:
    """Raises `UserError` with the nearest valid name unless all values are known.

    Args:
        known: str names.
    """
    for name, value in values.items():
        if value not in known:
            raise unknown_name(name, value, known)


def _is_number(value: typing.Any) -> bool:
    return isinstance(value, numbers.Real)
