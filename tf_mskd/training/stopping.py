"""A polite stop: SIGTERM and SIGINT finish the step and save a checkpoint."""

import contextlib
import signal
import sys
from collections.abc import Iterator

EXIT_CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}
RESUME = "Run the same command to resume from the last checkpoint."


class Stopped(SystemExit):
    """A signal stopped the run; the code is the signal's, the text how to resume.

    Args:
        number: int, the signal.
        text: str, one line for the user.
    """

    def __init__(self, number: int, text: str):
        super().__init__(EXIT_CODES[number])
        self.text = text


@contextlib.contextmanager
def signals_stop() -> Iterator[None]:
    """Makes SIGTERM and SIGINT raise `Stopped` where nothing listens.

    While data are read or a finished network is measured there is no step to finish;
    the last checkpoint is on the disk. Python drops what is raised within a destructor
    or a garbage-collection callback, and prints its traceback: here the signal is
    remembered for the training that follows, and nothing is printed.
    """

    def stop(number, frame):
        StopRequest.missed = number
        raise Stopped(number, f"Stopped. {RESUME}")

    def unraisable(dropped):
        if not isinstance(dropped.exc_value, Stopped):
            hook(dropped)

    StopRequest.missed = None
    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    old = {number: signal.signal(number, stop) for number in EXIT_CODES}
    try:
        yield
    finally:
        sys.unraisablehook = hook
        StopRequest.missed = None  # what comes after is another run's
        for number, handler in old.items():
            signal.signal(number, handler)


class StopRequest:
    """Remembers a signal that arrived while `listening`; a second one ends at once."""

    signal = None
    missed = None  # a signal from before, whose exception may have been lost
    _text = None  # what to say where a signal ends all at once

    @contextlib.contextmanager
    def listening(self) -> "Iterator[StopRequest]":
        """Handles SIGINT and SIGTERM for the length of a with block.

        Outside the main thread, where Python allows no handlers, it does nothing.
        """
        try:
            old = {n: signal.signal(n, self._remember) for n in EXIT_CODES}
        except ValueError:
            old = {}
        self.signal = self.missed
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self, text: str) -> Iterator[None]:
        """Lets a signal end a with block wherever it stands, and one from before too.

        For work that leaves nothing to be saved; an exception that a destructor drops
        is remembered all the same.

        Args:
            text: str, of the `Stopped` that is raised.
        """
        self._text = text
        try:
            if self.signal is not None:
                raise Stopped(self.signal, text)
            yield
        finally:
            self._text = None

    def _remember(self, number, frame):
        again, self.signal = self.signal is not None, number
        if again:
            raise Stopped(number, f"Stopped at once. {RESUME}")
        if self._text is not None:
            raise Stopped(number, self._text)
