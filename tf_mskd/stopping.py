"""A polite stop: SIGTERM and SIGINT finish the step and keep the state."""

import contextlib
import signal

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
def sigterm_stops():
    """Makes SIGTERM raise `Stopped` where nothing listens, as SIGINT raises its own.

    While data are read or a finished network is measured there is no step to finish;
    the last state is on the disk.
    """

    def stop(number, frame):
        StopRequest.missed = number  # Python drops what is raised in a destructor
        raise Stopped(number, "stopped; the same command goes on from the last state.")

    StopRequest.missed = None
    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


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
