"""The steps of a run in TensorFlow: one strategy, one stream, compiled calls."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from tf_mskd.training import strategies
from tf_mskd.training.data_wait import DataWait
from tf_mskd.training.distiller import Distiller
from tf_mskd.training.steps import Done


class TensorFlowLoop:
    """Does steps of a `Distiller` under a strategy, many in one compiled call.

    Args:
        distiller: compiled `Distiller`, made under `strategy`.
        strategy: `tf.distribute.Strategy`.
        stream: function of the first global step, and of a `part` of each batch (see
            `pipeline.train_stream`) -> `tf.data.Dataset` of batches.

    Attributes:
        steps_must_agree: see `steps.Steps`.
    """

    def __init__(
        self,
        distiller: Distiller,
        strategy: tf.distribute.Strategy,
        stream: Callable[..., tf.data.Dataset],
    ):
        self._distiller, self._strategy, self._stream = distiller, strategy, stream
        self.steps_must_agree = strategies.is_multi_worker(strategy)
        self._iterator, self._functions = iter(()), {}
        self._wait = DataWait()

    def open(self, step: int) -> None:
        """Makes `step` the next global step."""
        stream = functools.partial(self._stream, step)
        self._iterator = iter(strategies.distributed(self._strategy, stream))

    def run(self, steps: int) -> Done:
        """Does so many steps; their waiting is seen within `guarding`."""
        before = self._wait.seconds
        finite = int(self._function()(self._iterator, tf.constant(steps)))
        return Done(finite, self._wait.seconds - before)

    @contextlib.contextmanager
    def guarding(self) -> Iterator[None]:
        """Makes a `UserError` of TensorFlow's, see `strategies.explaining_errors`."""
        with strategies.explaining_errors(self._strategy), self._wait.watched():
            yield

    def any_worker(self, *claims: bool) -> tuple[bool, ...]:
        """Returns whether any worker makes each claim; every worker must call it."""
        return strategies.any_worker(self._strategy, *claims)

    def check_start(self, step: int) -> None:
        """Refuses workers whose newest checkpoints, of `step` here, differ."""
        strategies.check_same_step(self._strategy, step)

    def spread_seeds(self, variables: list[keras.Variable]) -> None:
        """Gives the random layers of each replica seeds of their own."""
        strategies.spread_seeds(variables, self._strategy)

    def _function(self):
        phase = self._distiller.phase
        if phase not in self._functions:
            self._functions[phase] = self._compile()
        return self._functions[phase]

    def _compile(self):
        strategy = self._strategy
        step = tf.autograph.experimental.do_not_convert(self._distiller.train_step)
        next_batch = tf.autograph.experimental.do_not_convert(self._wait.next)

        @tf.function
        def train(iterator, steps):
            finite = tf.constant(0)
            for _ in tf.range(steps):
                logs = strategy.run(step, args=(next_batch(iterator),))
                losses = tf.stack(strategy.experimental_local_results(logs["loss"]))
                is_finite = tf.reduce_all(tf.math.is_finite(losses))
                finite += tf.cast(is_finite, tf.int32)
            return finite

        return train
