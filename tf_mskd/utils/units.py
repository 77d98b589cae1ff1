"""Figures as a person reads them: fractions in percent, others as they are."""

PERCENT = "%"


def scaled(value: float, unit: str) -> float:
    """Returns the number that stands before the unit.

    Example:
        >>> scaled(0.25, "%"), scaled(18.5, "dB")
        (25.0, 18.5)
    """
    return 100 * value if unit == PERCENT else value


def shown(value: float, unit: str) -> str:
    """Returns a figure with two digits and its unit; with four digits without one.

    Example:
        >>> shown(0.25, "%"), shown(0.25, "")
        ('25.00 %', '0.2500')
    """
    digits = 2 if unit else 4
    return f"{scaled(value, unit):.{digits}f} {unit}".rstrip()
