"""How long compiled steps wait for their data, looked at from another thread.

Clocks are no part of the steps: TensorFlow's own is refused where operations must be
deterministic, and a call of Python's would wait for the threads that read the data.
"""

import contextlib
import threading
import time
import typing
from collections.abc import Iterator

import tensorflow as tf

INTERVAL = 0.02  # seconds between two looks


class DataWait:
    """A mark that steps set while they wait for a batch, and what has been seen of it.

    The waiting is that of the host. On a GPU, which still works on what it was given
    before, it is at least that of the device.

    Attributes:
        seconds: float, in which the mark was set while it was watched.
    """

    def __init__(self):
        self.seconds, self._looked_at = 0.0, time.monotonic()
        with tf.device("CPU:0"):
            self._mark = tf.Variable(False, trainable=False)

    def next(self, iterator: typing.Any) -> typing.Any:
        """Returns the next batch; called within the compiled steps.

        TensorFlow itself orders the mark neither against the reading nor against the
        step that takes the batch.
        """
        with tf.control_dependencies([self._mark.assign(True)]):
            batch = next(iterator)
        with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
            read = self._mark.assign(False)
        with tf.control_dependencies([read]):
            return tf.nest.map_structure(_where_it_is, batch, expand_composites=True)

    def look(self) -> None:
        """Counts the time since the look before, if the mark is set now."""
        now = time.monotonic()
        if self._mark.numpy():
            self.seconds += now - self._looked_at
        self._looked_at = now

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Looks every 20 ms, for the length of a with block."""
        stop = threading.Event()

        def watch():
            while not stop.wait(INTERVAL):
                self.look()

        self._mark.assign(False)
        self._looked_at = time.monotonic()
        thread = threading.Thread(target=watch, name="data wait", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _where_it_is(value):
    """The same tensor on the same device, behind what controls it."""
    with tf.device(value.device):
        return tf.identity(value)
