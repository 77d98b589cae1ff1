"""How many steps a compiled call does, so that a stop is obeyed soon."""

CALL_SECONDS = 1.0  # a stop waits for one compiled call, so calls stay short


class Pace:
    """Sizes calls by the time that the steps of the last one took.

    Args:
        most: int > 0, steps in one call at most.
        fixed: bool, whether calls have this size whatever time they take, for several
            workers, whose clocks differ.

    Example:
        >>> pace = Pace(20)
        >>> pace.steps(100)  # how long a step takes is not known yet
        1
        >>> pace.took(0.1, 1)
        >>> pace.steps(100), pace.steps(3)
        (10, 3)
    """

    def __init__(self, most: int, fixed: bool = False):
        self._most, self._fixed, self._seconds = most, fixed, CALL_SECONDS

    def took(self, seconds: float, steps: int) -> None:
        """Learns what the steps of a call took."""
        self._seconds = max(seconds, 1e-6) / steps  # a clock may stand still

    def steps(self, to_go: int) -> int:
        """Returns the size of the next call, of `to_go` steps at most."""
        steps = self._most
        if not self._fixed:
            steps = min(steps, int(CALL_SECONDS / self._seconds))
        return max(1, min(steps, to_go))
