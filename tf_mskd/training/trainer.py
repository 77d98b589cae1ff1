"""The loop of a run: one strategy, one stream, exact resume."""

import signal
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_mskd.training.averaging import averaged_weights, use_averages
from tf_mskd.training.checkpoint import CheckpointManager
from tf_mskd.training.cursor import Cursor
from tf_mskd.training.distiller import Distiller
from tf_mskd.training.stopping import Stopped, StopRequest
from tf_mskd.training.strategies import (
    any_worker,
    check_same_step,
    explaining_lost_workers,
    is_multi_worker,
    spread_seeds,
)
from tf_mskd.utils.errors import UserError

CALL_SECONDS = 1.0  # a stop waits for one compiled call, so calls stay short


class Trainer:
    """Trains a compiled `Distiller` and resumes from the newest checkpoint.

    The position of a run is the number of finished steps. Order and augmentation are
    functions of it, so a run that is killed and started again does the same steps with
    the same data.

    Args:
        distiller: compiled `Distiller`, made under `strategy`, its optimizer built.
        strategy: `tf.distribute.Strategy`.
        stream: function of the first global step -> `tf.data.Dataset` of batches.
        steps_per_epoch: int > 0.
        epochs: int > 0.
        checkpoints: `CheckpointManager`.
        callbacks: list of Keras callbacks; they may set variables of the distiller. At
            the end of an epoch they see the averages of weights that are averaged.
        validate: function without arguments -> dict of floats, run after each epoch,
            or None.
        prepare: function of (epoch, function that returns whether a stop was
            requested), run before the first batch of an epoch is read, or None; the
            stream then ends with the epoch.
        start: function without arguments, run before the first step and after every
            resume, once the state is restored; or None.
        on_epoch: function of the history (list of dicts), run after each epoch's
            checkpoint is on disk.
        steps_per_call: int > 0, most steps in one compiled call.
        checkpoint_minutes: float, time between checkpoints within an epoch; 0 for none.
        checkpoint_steps: int, steps between checkpoints within an epoch; 0 for none.

    Attributes:
        cursor: `Cursor`, the position of the run.
    """

    def __init__(
        self,
        distiller: Distiller,
        strategy: tf.distribute.Strategy,
        stream: Callable[[int], tf.data.Dataset],
        *,
        steps_per_epoch: int,
        epochs: int,
        checkpoints: CheckpointManager,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        validate: Callable[[], dict[str, float]] | None = None,
        prepare: Callable[[int, Callable[[], bool]], None] | None = None,
        start: Callable[[], None] | None = None,
        on_epoch: Callable[[list[dict]], None] | None = None,
        steps_per_call: int = 20,
        checkpoint_minutes: float = 10.0,
        checkpoint_steps: int = 0,
    ):
        self.distiller, self.strategy, self.stream = distiller, strategy, stream
        self.cursor, self.checkpoints = Cursor(epochs, steps_per_epoch), checkpoints
        self.validate, self.prepare, self.on_epoch = validate, prepare, on_epoch
        self.start = start
        self.steps_per_call = steps_per_call
        self.checkpoint_seconds = 60.0 * checkpoint_minutes
        self.checkpoint_steps = checkpoint_steps
        self._step_seconds, self._stop = CALL_SECONDS, StopRequest()
        self._functions = {}
        self._callbacks = keras.callbacks.CallbackList(
            list(callbacks), model=distiller, epochs=epochs, steps=steps_per_epoch
        )

    def run(self) -> list[dict]:
        """Trains to the last epoch; returns the history, a list of one dict an epoch.

        Raises:
            UserError: if the loss stops being a number; names the epoch and the step.
            UserError: if another worker of several has stopped.
            Stopped: after SIGTERM or SIGINT, once the step is done and checkpointed.
        """
        with explaining_lost_workers(self.strategy), self._stop.listening():
            return self._run()

    def _run(self):
        self._restore()
        if self.start:
            self.start()
        cursor = self.cursor
        logs = {"first_step": cursor.step, "history": cursor.history}
        self._callbacks.on_train_begin(logs)
        iterator = None
        self._saved_at = time.monotonic()
        while not cursor.is_at_end:
            if self.prepare:
                start = time.monotonic()
                self.prepare(cursor.epoch, self._is_asked_to_stop)
                cursor.seconds += time.monotonic() - start
                self._stop_if(self._is_asked_to_stop())
            if self.prepare or iterator is None:
                iterator = self._iterator()
            self._epoch(iterator)
        use_averages(self.distiller)
        self._callbacks.on_train_end()
        return cursor.history

    def _epoch(self, iterator):
        cursor = self.cursor
        epoch, done = cursor.epoch, cursor.step_of_epoch
        start = time.monotonic() - cursor.seconds
        if not done:
            self.distiller.reset_metrics()
        self._callbacks.on_epoch_begin(epoch)
        train = self._train_function()
        while done < cursor.steps_per_epoch:
            steps = self._steps_to_do(done)
            called = time.monotonic()
            finite = int(train(iterator, tf.constant(steps)))
            if finite < steps:
                self._fail(epoch, done + finite)
            done += steps
            cursor.step += steps
            self._callbacks.on_train_batch_end(done - 1)
            cursor.seconds = time.monotonic() - start
            self._step_seconds = (time.monotonic() - called) / steps
            if done < cursor.steps_per_epoch:
                self._save_if_due(done)
        self._check_weights()  # before a callback keeps them
        logs = {name: float(v) for name, v in self.distiller.training_logs().items()}
        logs["seconds"] = round(cursor.seconds, 3)
        with averaged_weights(self.distiller):
            logs.update(self.validate() if self.validate else {})
            self._callbacks.on_epoch_end(epoch, logs)
        head = {"epoch": epoch + 1, "phase": self.distiller.phase}
        rate = self.distiller.optimizer.learning_rate  # of every device, or a number
        head["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
        cursor.history.append({**head, **logs})
        cursor.seconds = 0.0
        self._save()
        if self.on_epoch:
            self.on_epoch(cursor.history)
        self._stop_if(*any_worker(self.strategy, self._is_asked_to_stop()))

    def _steps_to_do(self, done):
        steps = self.steps_per_call
        if not is_multi_worker(self.strategy):  # workers must agree on the number
            steps = min(steps, int(CALL_SECONDS / self._step_seconds))
        to_go = [self.cursor.steps_per_epoch - done]
        if self.checkpoint_steps:
            to_go.append(self.checkpoint_steps - done % self.checkpoint_steps)
        return max(1, min(steps, *to_go))

    def _train_function(self):
        phase = self.distiller.phase
        if phase not in self._functions:
            self._functions[phase] = self._compile()
        return self._functions[phase]

    def _compile(self):
        strategy = self.strategy
        step = tf.autograph.experimental.do_not_convert(self.distiller.train_step)

        @tf.function
        def train(iterator, steps):
            finite = tf.constant(0)
            for _ in tf.range(steps):
                logs = strategy.run(step, args=(next(iterator),))
                losses = tf.stack(strategy.experimental_local_results(logs["loss"]))
                is_finite = tf.reduce_all(tf.math.is_finite(losses))
                finite += tf.cast(is_finite, tf.int32)
            return finite

        return train

    def _iterator(self):
        data = self.stream(self.cursor.step)
        return iter(self.strategy.experimental_distribute_dataset(data))

    def _is_asked_to_stop(self):
        return self._stop.signal is not None

    def _stop_if(self, asked):
        if not asked:
            return
        saved = "Checkpoint saved" if self.cursor.step else "No step is done yet"
        raise Stopped(
            self._stop.signal or signal.SIGTERM,
            f"Stopped {self.cursor}. {saved}; run the same command to resume.",
        )

    def _fail(self, epoch, step):
        place = f"epoch {epoch + 1}, step {step + 1} of {self.cursor.steps_per_epoch}"
        raise UserError(
            f"Loss or weights are not finite at {place}: training stops. The last good "
            f"checkpoint is in {self.checkpoints.folder}; lower --lr or check the data."
        )

    # ---- checkpoints

    def _save_if_due(self, done):
        waited = time.monotonic() - self._saved_at
        due = 0 < self.checkpoint_seconds < waited
        stop, due = any_worker(self.strategy, self._is_asked_to_stop(), due)
        if self.checkpoint_steps and done % self.checkpoint_steps == 0:
            due = True
        if stop or due:
            self._check_weights()
            self._save()
        self._stop_if(stop)

    def _check_weights(self):
        weights = [w for part in self.distiller.learning_parts for w in part.weights]
        if not all(np.isfinite(w.numpy()).all() for w in weights):
            self._fail(*divmod(self.cursor.step - 1, self.cursor.steps_per_epoch))

    def _save(self):
        self.cursor.write(self.checkpoints, self.distiller.state_variables)
        self._saved_at = time.monotonic()

    def _restore(self):
        check_same_step(self.strategy, self.checkpoints.newest_step())
        variables = self.distiller.state_variables
        resumed = self.cursor.restore(self.checkpoints, variables)
        if resumed and self.on_epoch and self.cursor.history:
            self.on_epoch(self.cursor.history)
        spread_seeds(variables, self.strategy)
