"""Figures as a person reads them: fractions in percent, sizes and times rounded."""

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


def duration(seconds: float) -> str:
    """Returns a time in its two largest units.

    Example:
        >>> duration(42.4), duration(600), duration(3900), duration(200_000)
        ('42 s', '10 min', '1 h 05 min', '2 d 07 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min"
    return f"{hours // 24} d {hours % 24:02} h"


def size(count: float) -> str:
    """Returns a number of bytes in the unit that suits it.

    Example:
        >>> size(900), size(2_500_000), size(1.2e11)
        ('900 bytes', '2.5 MB', '120.0 GB')
    """
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} bytes"
