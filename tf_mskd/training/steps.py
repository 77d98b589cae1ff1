"""What the loop of a run asks of what does its steps, on any backend."""

import contextlib
import typing

import keras


class Done(typing.NamedTuple):
    """What a call of several steps reports.

    Args:
        finite: int, how many of the steps, from the first on, had a finite loss.
        waited: float, seconds in which the call waited for data, as far as they were
            seen.
    """

    finite: int
    waited: float


class Steps(typing.Protocol):
    """Does the steps of a run on some devices; see `TensorFlowLoop`."""

    steps_must_agree: bool  # whether other processes wait for as many in each call

    def open(self, step: int) -> None:
        """Makes `step` the next global step."""

    def run(self, steps: int) -> Done:
        """Does so many steps."""

    def guarding(self) -> contextlib.AbstractContextManager:
        """Explains, for the length of a run, what the loss of a worker raises."""

    def any_worker(self, *claims: bool) -> tuple[bool, ...]:
        """Returns whether any worker makes each claim; every worker must call it."""

    def check_start(self, step: int) -> None:
        """Refuses workers whose newest checkpoints, of `step` here, differ."""

    def spread_seeds(self, variables: list[keras.Variable]) -> None:
        """Gives the random layers of each replica seeds of their own."""
