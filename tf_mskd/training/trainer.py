"""The loop of a run: one strategy, one stream, exact resume."""

import signal
import time

import keras
import numpy as np
import tensorflow as tf

from tf_mskd.training.stopping import Stopped, StopRequest
from tf_mskd.training.strategies import (
    explaining_lost_workers,
    is_multi_worker,
    spread_seeds,
)
from tf_mskd.utils.errors import UserError

CALL_SECONDS = 1.0  # a stop waits for one compiled call, so calls stay short


class Trainer:
    """Trains a compiled `Distiller` and goes on where the last state stands.

    The position of a run is the number of finished steps. Order and augmentation are
    functions of it, so a run that is killed and started again does the same steps with
    the same data.

    Args:
        distiller: compiled `Distiller`, made under `strategy`, its optimizer built.
        strategy: `tf.distribute.Strategy`.
        stream: function of the first global step -> `tf.data.Dataset` of batches.
        steps_per_epoch: int > 0.
        epochs: int > 0.
        states: `checkpoint.States`.
        callbacks: list of Keras callbacks; they may set variables of the distiller.
        validate: function without arguments -> dict of floats, run after each epoch,
            or None.
        prepare: function of (epoch, function that tells whether a stop was asked for),
            run before the first batch of an epoch is read, or None; the stream then
            ends with the epoch.
        on_epoch: function of the history (list of dicts), run after each epoch's state
            is on disk.
        steps_per_call: int > 0, most steps in one compiled call.
        checkpoint_minutes: float, time between states within an epoch; 0 for none.
        checkpoint_steps: int, steps between states within an epoch; 0 for none.
    """

    def __init__(
        self,
        distiller,
        strategy,
        stream,
        *,
        steps_per_epoch,
        epochs,
        states,
        callbacks=(),
        validate=None,
        prepare=None,
        on_epoch=None,
        steps_per_call=20,
        checkpoint_minutes=10.0,
        checkpoint_steps=0,
    ):
        self.distiller, self.strategy, self.stream = distiller, strategy, stream
        self.steps_per_epoch, self.epochs = steps_per_epoch, epochs
        self.states, self.validate, self.on_epoch = states, validate, on_epoch
        self.prepare = prepare
        self.steps_per_call = steps_per_call
        self.checkpoint_seconds = 60.0 * checkpoint_minutes
        self.checkpoint_steps = checkpoint_steps
        self.history, self.step = [], 0
        self._step_seconds, self._stop = CALL_SECONDS, StopRequest()
        self._functions = {}
        self._callbacks = keras.callbacks.CallbackList(
            list(callbacks), model=distiller, epochs=epochs, steps=steps_per_epoch
        )

    def run(self):
        """Trains to the last epoch; returns the history, a list of one dict an epoch.

        Raises:
            UserError: if the loss stops being a number; names the epoch and the step.
            UserError: if another worker of several has gone.
            Stopped: after SIGTERM or SIGINT, once the step is done and its state kept.
        """
        with explaining_lost_workers(self.strategy), self._stop.listening():
            return self._run()

    def _run(self):
        self._restore()
        start = {"first_step": self.step, "history": self.history}
        self._callbacks.on_train_begin(start)
        iterator = None
        self._saved_at = time.monotonic()
        while self.step < self._total:
            if self.prepare:
                start = time.monotonic()
                self.prepare(self.step // self.steps_per_epoch, self._is_asked_to_stop)
                self._seconds += time.monotonic() - start
                self._stop_if(self._is_asked_to_stop())
            if self.prepare or iterator is None:
                iterator = self._iterator()
            self._epoch(iterator)
        self._callbacks.on_train_end()
        return self.history

    @property
    def _total(self):
        return self.epochs * self.steps_per_epoch

    def _epoch(self, iterator):
        epoch, done = divmod(self.step, self.steps_per_epoch)
        start = time.monotonic() - self._seconds
        if not done:
            self.distiller.reset_metrics()
        self._callbacks.on_epoch_begin(epoch)
        train = self._train_function()
        while done < self.steps_per_epoch:
            steps = self._steps_to_do(done)
            called = time.monotonic()
            finite = int(train(iterator, tf.constant(steps)))
            if finite < steps:
                self._fail(epoch, done + finite)
            done += steps
            self.step += steps
            self._callbacks.on_train_batch_end(done - 1)
            self._seconds = time.monotonic() - start
            self._step_seconds = (time.monotonic() - called) / steps
            if done < self.steps_per_epoch:
                self._save_now_and_then(done)
        self._check_weights()  # before a callback keeps them
        logs = {name: float(v) for name, v in self.distiller.training_logs().items()}
        logs["seconds"] = round(self._seconds, 3)
        logs.update(self.validate() if self.validate else {})
        self._callbacks.on_epoch_end(epoch, logs)
        head = {"epoch": epoch + 1, "phase": self.distiller.phase}
        rate = self.distiller.optimizer.learning_rate  # of every device, or a number
        head["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
        self.history.append({**head, **logs})
        self._seconds = 0.0
        self._save()
        if self.on_epoch:
            self.on_epoch(self.history)
        self._stop_if(*self._agree(self._is_asked_to_stop()))

    def _steps_to_do(self, done):
        steps = self.steps_per_call
        if not is_multi_worker(self.strategy):  # workers must agree on the number
            steps = min(steps, int(CALL_SECONDS / self._step_seconds))
        to_go = [self.steps_per_epoch - done]
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
        data = self.stream(self.step)
        return iter(self.strategy.experimental_distribute_dataset(data))

    def _is_asked_to_stop(self):
        return self._stop.signal is not None

    def _stop_if(self, asked):
        if not asked:
            return
        epoch, done = divmod(self.step, self.steps_per_epoch)
        place = f"at epoch {epoch + 1}, step {done} of {self.steps_per_epoch}"
        raise Stopped(
            self._stop.signal or signal.SIGTERM,
            f"stopped {'after the last epoch' if self.step == self._total else place}; "
            "the state is kept, the same command goes on from there.",
        )

    def _fail(self, epoch, step):
        raise UserError(
            f"Loss or weights are not finite numbers at epoch {epoch + 1}, step "
            f"{step + 1} of {self.steps_per_epoch}: training stops, the last good "
            f"state is in {self.states.folder}. Lower --lr, or check the data."
        )

    # ---- state

    def _save_now_and_then(self, done):
        waited = time.monotonic() - self._saved_at
        due = 0 < self.checkpoint_seconds < waited
        stop, due = self._agree(self._is_asked_to_stop(), due)
        if self.checkpoint_steps and done % self.checkpoint_steps == 0:
            due = True
        if stop or due:
            self._check_weights()
            self._save()
        self._stop_if(stop)

    def _agree(self, *claims):
        """Whether any worker makes each claim; saving is a step that all must take."""
        if not is_multi_worker(self.strategy):
            return claims
        votes = tf.constant([float(claim) for claim in claims])
        votes = self.strategy.run(lambda: tf.identity(votes))
        total = self.strategy.reduce(tf.distribute.ReduceOp.SUM, votes, axis=None)
        return tuple(total.numpy() > 0)

    def _check_weights(self):
        weights = [w for part in self.distiller.learning_parts for w in part.weights]
        if not all(np.isfinite(w.numpy()).all() for w in weights):
            self._fail(*divmod(self.step - 1, self.steps_per_epoch))

    def _save(self):
        cursor = {
            "step": self.step,
            "seconds": self._seconds,
            "history": self.history,
        }
        self.states.write(self.step, self.distiller.state_variables, cursor)
        self._saved_at = time.monotonic()

    def _restore(self):
        self._seconds = 0.0
        self._check_workers()
        cursor = self.states.restore(self.distiller.state_variables)
        if cursor is not None:
            self._check_cursor(cursor)
            self.step, self.history = cursor["step"], cursor["history"]
            self._seconds = cursor["seconds"]
            if self.on_epoch and self.history:
                self.on_epoch(self.history)
        spread_seeds(self.distiller.state_variables, self.strategy)

    def _check_cursor(self, cursor):
        """Refuses a position that no run of this length writes."""
        cursor = cursor if isinstance(cursor, dict) else {}
        step, history = cursor.get("step"), cursor.get("history")
        if (
            not isinstance(step, int)
            or not 0 <= step <= self._total
            or not isinstance(cursor.get("seconds"), int | float)
            or not isinstance(history, list)
            or not all(isinstance(epoch, dict) for epoch in history)
            or [epoch.get("epoch") for epoch in history]
            != list(range(1, step // self.steps_per_epoch + 1))
        ):
            raise UserError(
                f"The newest state in {self.states.folder} names no position of a run "
                f"of {self.epochs} epochs of {self.steps_per_epoch} steps: it belongs "
                "to another run. Remove it to use the one before."
            )

    def _check_workers(self):
        """Refuses workers that see different states, before each restores its own."""
        if not is_multi_worker(self.strategy):
            return
        newest = self.states.newest_step()
        steps = tf.constant(newest, tf.int64)
        steps = self.strategy.run(lambda: tf.identity(steps))
        total = self.strategy.reduce(tf.distribute.ReduceOp.SUM, steps, axis=None)
        if int(total) != newest * self.strategy.num_replicas_in_sync:
            raise UserError(
                f"This worker stands at step {newest}, another does not: --run_dir "
                "must be one folder that all machines share."
            )
