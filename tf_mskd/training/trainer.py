"""The loop of a run: epochs, callbacks, checkpoints, exact resume."""

import contextlib
import signal
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np

from tf_mskd.training.averaging import averaged_weights, use_averages
from tf_mskd.training.checkpoint import CheckpointManager
from tf_mskd.training.cursor import Cursor
from tf_mskd.training.distiller import Distiller
from tf_mskd.training.pace import Pace
from tf_mskd.training.steps import Steps
from tf_mskd.training.stopping import Stopped, StopRequest
from tf_mskd.utils.errors import UserError


class _Left(Exception):
    """A stop was requested during a validation."""


class Trainer:
    """Trains a compiled `Distiller` and resumes from the newest checkpoint.

    The position of a run is the number of finished steps. Order and augmentation are
    functions of it, so a run that is killed and started again does the same steps with
    the same data.

    Args:
        distiller: compiled `Distiller`, its optimizer built.
        loop: `Steps`, what does the steps.
        steps_per_epoch: int > 0.
        epochs: int > 0.
        checkpoints: `CheckpointManager`.
        callbacks: list of Keras callbacks; they may set variables of the distiller. At
            the end of an epoch they see the averages of weights that are averaged.
        validate: function -> dict of floats, run after each epoch, or None. Its
            argument is a function to call after each batch, which ends the validation
            by an exception once a stop is requested; a resume does it anew.
        prepare: function of (epoch, function that returns whether a stop was
            requested), run before the first batch of an epoch is read, or None; the
            loop is then opened for each epoch.
        start: function without arguments, run before the first step and after every
            resume, once the state is restored; or None.
        on_epoch: function of the history (list of dicts), run after each epoch, whose
            checkpoint may still be being written, and after a resume.
        steps_per_call: int > 0, most steps in one compiled call.
        checkpoint_minutes: float, time between checkpoints within an epoch; 0 for none.
        checkpoint_steps: int, steps between checkpoints within an epoch; 0 for none.
        checkpoint_epochs: bool, a checkpoint after every epoch; else after those that
            end when `checkpoint_minutes` are over, and the last.

    Attributes:
        cursor: `Cursor`, the position of the run.
    """

    def __init__(
        self,
        distiller: Distiller,
        loop: Steps,
        *,
        steps_per_epoch: int,
        epochs: int,
        checkpoints: CheckpointManager,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        validate: Callable[[Callable[[], None]], dict[str, float]] | None = None,
        prepare: Callable[[int, Callable[[], bool]], None] | None = None,
        start: Callable[[], None] | None = None,
        on_epoch: Callable[[list[dict]], None] | None = None,
        steps_per_call: int = 20,
        checkpoint_minutes: float = 10.0,
        checkpoint_steps: int = 0,
        checkpoint_epochs: bool = True,
    ):
        self.distiller, self.loop = distiller, loop
        self.cursor, self.checkpoints = Cursor(epochs, steps_per_epoch), checkpoints
        self.validate, self.prepare, self.on_epoch = validate, prepare, on_epoch
        self.start = start
        self.checkpoint_seconds = 60.0 * checkpoint_minutes
        self.checkpoint_steps = checkpoint_steps
        self.checkpoint_epochs = checkpoint_epochs
        self._pace = Pace(steps_per_call, fixed=loop.steps_must_agree)
        self._stop = StopRequest()
        self._is_open, self._traced, self._saved_step = False, set(), 0
        self._callbacks = keras.callbacks.CallbackList(
            list(callbacks), model=distiller, epochs=epochs, steps=steps_per_epoch
        )

    def run(self) -> list[dict]:
        """Trains to the last epoch; returns the history, a list of one dict an epoch.

        Raises:
            UserError: if the loss stops being a number; names the epoch and the step.
            UserError: if another worker of several has stopped.
            Stopped: after SIGTERM or SIGINT, once the step is done and checkpointed; at
                once where nothing is to be saved.
        """
        with self.loop.guarding(), self._stop.listening():
            try:
                return self._run()
            finally:
                self.checkpoints.wait()

    def _run(self):
        self._restore()
        if self.start:
            with self._losing_nothing():
                self.start()
        cursor = self.cursor
        logs = {"first_step": cursor.step, "history": cursor.history}
        self._callbacks.on_train_begin(logs)
        self._saved_at = time.monotonic()
        while not cursor.is_at_end:
            if cursor.has_steps_to_do:
                self._open()
            self._epoch()
        use_averages(self.distiller)
        self._callbacks.on_train_end()
        return cursor.history

    def _open(self):
        """Makes the loop ready for the next step."""
        if self.prepare:
            start = time.monotonic()
            with self._losing_nothing():
                self.prepare(self.cursor.epoch, self._is_asked_to_stop)
            self.cursor.seconds += time.monotonic() - start
            self._stop_if(self._is_asked_to_stop())
        if self.prepare or not self._is_open:
            self.loop.open(self.cursor.step)
            self._is_open = True

    def _epoch(self):
        epoch = self.cursor.epoch
        if not self.cursor.step_of_epoch:
            self.distiller.reset_metrics()
        self._callbacks.on_epoch_begin(epoch)
        self._end_epoch(epoch, self._do_steps(epoch))

    def _do_steps(self, epoch):
        """Does the steps that an epoch lacks; returns the part of the time that waited.

        The part is of the time since this start of the run, of a resumed epoch too.
        """
        cursor, done = self.cursor, self.cursor.step_of_epoch
        start, waited, ran = time.monotonic() - cursor.seconds, 0.0, 0.0
        while done < cursor.steps_per_epoch:
            steps = self._steps_to_do(done)
            called = time.monotonic()
            with self._unless_traced():
                result = self.loop.run(steps)
            if result.finite < steps:
                self._fail(epoch, done + result.finite)
            done += steps
            cursor.step += steps
            self._callbacks.on_train_batch_end(done - 1)
            cursor.seconds = time.monotonic() - start
            seconds = time.monotonic() - called
            self._pace.took(seconds, steps)
            waited, ran = waited + result.waited, ran + seconds
            if done < cursor.steps_per_epoch:
                self._save_if_due(done)
        return min(waited / ran, 1.0) if ran else 0.0

    def _end_epoch(self, epoch, waiting):
        cursor = self.cursor
        self._check_weights()  # before a callback keeps them
        logs = {name: float(v) for name, v in self.distiller.training_logs().items()}
        logs["seconds"] = round(cursor.seconds, 3)
        try:
            self._validate(epoch, logs, waiting)
        except _Left:
            self._save()
            self._stop_if(True)
        cursor.history.append({**self._head(epoch), **logs})
        cursor.seconds = 0.0
        (stop,) = self.loop.any_worker(self._is_asked_to_stop())
        if self.checkpoint_epochs or stop or cursor.is_at_end or self._minutes_over():
            self._save()
        if self.on_epoch:
            self.on_epoch(cursor.history)
        self._stop_if(stop)

    def _validate(self, epoch, logs, waiting):
        """Adds the figures of the validation to the logs and shows all to callbacks."""
        with averaged_weights(self.distiller):
            if self.validate:
                self._leave_if_asked()
                logs.update(self.validate(self._leave_if_asked))
            # no part of the history, which is the same however fast the machine is
            self._callbacks.on_epoch_end(epoch, {**logs, "waiting": waiting})

    def _head(self, epoch):
        """What the line of an epoch begins with."""
        rate = self.distiller.optimizer.learning_rate  # of every device, or a number
        return {
            "epoch": epoch + 1,
            "phase": self.distiller.phase,
            "learning_rate": float(keras.ops.convert_to_numpy(rate)),
        }

    def _steps_to_do(self, done):
        to_go = self.cursor.steps_per_epoch - done
        if self.checkpoint_steps:
            to_go = min(to_go, self.checkpoint_steps - done % self.checkpoint_steps)
        return self._pace.steps(to_go)

    def _is_asked_to_stop(self):
        return self._stop.signal is not None

    def _leave_if_asked(self):
        # several workers must do as many batches
        if self._is_asked_to_stop() and not self.loop.steps_must_agree:
            raise _Left

    def _stop_if(self, asked):
        if asked:
            raise Stopped(self._stop.signal or signal.SIGTERM, self.cursor.stopped)

    def _losing_nothing(self):
        """Lets a signal end at once what begins with all steps saved.

        Other workers would wait for this one in vain.
        """
        if self.loop.steps_must_agree or self.cursor.step != self._saved_step:
            return contextlib.nullcontext()
        return self._stop.at_once(self.cursor.stopped)

    def _unless_traced(self):
        """The same of the first step of a phase, whose tracing may take a minute."""
        if self.distiller.phase in self._traced:
            return contextlib.nullcontext()
        self._traced.add(self.distiller.phase)
        return self._losing_nothing()

    def _fail(self, epoch, step):
        place = f"epoch {epoch + 1}, step {step + 1} of {self.cursor.steps_per_epoch}"
        raise UserError(
            f"Loss or weights are not finite at {place}: training stops. The last good "
            f"checkpoint is in {self.checkpoints.folder}; lower --lr or check the data."
        )

    # ---- checkpoints

    def _save_if_due(self, done):
        claims = self._is_asked_to_stop(), self._minutes_over()
        stop, due = self.loop.any_worker(*claims)
        if self.checkpoint_steps and done % self.checkpoint_steps == 0:
            due = True
        if stop or due:
            self._check_weights()
            self._save()
        self._stop_if(stop)

    def _minutes_over(self):
        return 0 < self.checkpoint_seconds < time.monotonic() - self._saved_at

    def _check_weights(self):
        weights = [w for part in self.distiller.learning_parts for w in part.weights]
        if not all(np.isfinite(w.numpy()).all() for w in weights):
            self._fail(*divmod(self.cursor.step - 1, self.cursor.steps_per_epoch))

    def _save(self):
        self.cursor.write(self.checkpoints, self.distiller.state_variables)
        self._saved_at, self._saved_step = time.monotonic(), self.cursor.step

    def _restore(self):
        self.loop.check_start(self.checkpoints.newest_step())
        variables = self.distiller.state_variables
        self.checkpoints.check_space(variables)
        resumed = self.cursor.restore(self.checkpoints, variables)
        self._saved_step = self.cursor.step
        if resumed and self.on_epoch and self.cursor.history:
            self.on_epoch(self.cursor.history)
        self.loop.spread_seeds(variables)
