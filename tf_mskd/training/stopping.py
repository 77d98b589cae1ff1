"""A polite stop: SIGTERM and SIGINT finish the step and keep the state."""

import contextlib
import signal
import sys

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Stopped(SystemExit):
    """A run was asked to stop; the code is the signal's, the text says how to go on.

    Args:
        number: int, the signal.
        text: str, one line for the user.
    """

    def __init__(self, number, text):
        super().__init__(EXIT_CODES[number])
        self.text = text


@contextlib.contextmanager
def signals_stop():
    """Makes SIGTERM and SIGINT raise `Stopped` where nothing listens.

    While data are read or a finished network is measured there is no step to finish;
    the last state is on the disk. Python drops what is raised within a destructor or a
    garbage-collection callback, and prints its traceback: here the signal is remembered
    for the training that follows, and nothing is printed.
    """

    def stop(number, frame):
        StopRequest.missed = number
        raise Stopped(number, "stopped; the same command goes on from the last state.")

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
        for number, handler in old.items():
            signal.signal(number, handler)


class StopRequest:
    """Remembers a signal that arrived while `listening`; a second one ends at once."""

    signal = None
    missed = None  # a signal from before, whose exception may have been lost

    @contextlib.contextmanager
    def listening(self):
        """Takes SIGINT and SIGTERM over for the length of a with block.

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

    def _remember(self, number, frame):
        if self.signal is not None:
            raise Stopped(number, "stopped at once; the last state is kept.")
        self.signal = number
