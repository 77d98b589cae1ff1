"""Steps of a run under TensorFlow's profiler, for TensorBoard."""

import contextlib
import os
from collections.abc import Callable, Iterator

import tensorflow as tf

from tf_mskd.training.distiller import Distiller
from tf_mskd.training.steps import Done
from tf_mskd.training.tensorflow_loop import TensorFlowLoop


class ProfiledLoop(TensorFlowLoop):
    """Does steps as `TensorFlowLoop`, some of them under the profiler.

    Calls are divided where the profile begins and ends; the numbers stay the same. What
    ends the run before the last of these steps ends the profile too.

    Args:
        distiller, strategy, stream: as of `TensorFlowLoop`.
        steps: (first, last), global steps counted from 1, both within the profile.
        folder: path of the logs; None divides the calls alike and profiles nothing, for
            the workers beside the chief.
    """

    def __init__(
        self,
        distiller: Distiller,
        strategy: tf.distribute.Strategy,
        stream: Callable[[int], tf.data.Dataset],
        steps: tuple[int, ...],
        folder: str | os.PathLike | None,
    ):
        super().__init__(distiller, strategy, stream)
        first, last = steps
        self._bounds, self._folder = (first - 1, last), folder
        self._step, self._is_on = 0, False

    def open(self, step: int) -> None:
        """Makes `step` the next global step."""
        super().open(step)
        self._step = step

    def run(self, steps: int) -> Done:
        """Does so many steps, in one call or in parts."""
        end, done = self._step + steps, Done(0, 0.0)
        while self._step < end:
            self._switch(self._bounds[0] <= self._step < self._bounds[1])
            stop = min(b for b in (*self._bounds, end) if b > self._step)
            part = super().run(stop - self._step)
            done = Done(done.finite + part.finite, done.waited + part.waited)
            self._step = stop
        if self._step >= self._bounds[1]:
            self._switch(False)
        return done

    @contextlib.contextmanager
    def guarding(self) -> Iterator[None]:
        """Ends the profile with the run, and what `TensorFlowLoop` does."""
        with super().guarding():
            try:
                yield
            finally:
                self._switch(False)

    def _switch(self, on):
        if on == self._is_on or self._folder is None:
            return
        self._is_on = on
        profiler = tf.profiler.experimental
        if on:
            profiler.start(os.fspath(self._folder))
        else:
            profiler.stop()
            print(f"profile of the steps to {self._step} in {self._folder}", flush=True)
