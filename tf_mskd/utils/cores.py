"""How many cores this process may use."""

import os


def usable_cores() -> int:
    """Returns the number of cores that this process may run on, at least 1.

    Example:
        >>> usable_cores() <= os.cpu_count()
        True
    """
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
