"""One progress bar for the whole run, and one printed line per epoch."""

import sys
import time
import typing

import keras
import tqdm

from tf_mskd.utils.units import duration, scaled

WAITING = 0.05  # part of the time, above which the line of an epoch tells it
JUDGED = 2.0  # seconds of an epoch below which its first batch is most of the waiting
HINT = (
    "hint: images are read and augmented more slowly than the network takes them. "
    "Store the files at the size that --image_size asks for, set --memory=decoded if "
    "the images fit into memory, drop costly --augment operations, or use more CPU "
    "cores."
)


class Progress(keras.callbacks.Callback):
    """Shows how far the run is, when it will end, and the metrics of each epoch.

    The bar is drawn on a terminal only; a log file gets the lines alone. The time to
    the end of the run is that of the steps to come, if they take as long as those since
    the line before, with validation and checkpoints.

    Args:
        batch_size: int > 0, images of a step.
    """

    def __init__(self, batch_size: int):
        super().__init__()
        self._batch_size = batch_size

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Draws the bar, with the steps that an earlier start has done filled in."""
        self._epochs, self._steps = self.params["epochs"], self.params["steps"]
        first = (logs or {}).get("first_step", 0)
        self._bar = tqdm.tqdm(
            total=self._epochs * self._steps,
            initial=first,
            unit="image",
            unit_scale=self._batch_size,
            smoothing=0.1,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        self._epoch, self._hinted = 0, False
        self._told_at, self._told_step = time.monotonic(), first

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remembers the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Moves the bar."""
        done = self._epoch * self._steps + batch + 1
        self._bar.update(done - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: typing.Any = None) -> None:
        """Prints the epoch's line: the figure of each exit, speed and time to go."""
        width = len(str(self._epochs))
        parts = [f"epoch {epoch + 1:{width}}/{self._epochs}"]
        parts.append(f"loss {logs['loss']:.3f}")
        parts += [*self._figures(logs), *self._speed(epoch, logs)]
        waiting = logs.get("waiting", 0.0) if logs["seconds"] > JUDGED else 0.0
        if waiting > WAITING:
            parts.append(f"waiting for data {waiting:.0%}".replace("%", " %"))
        self._write("  ".join(parts))
        if waiting > WAITING and not self._hinted:
            self._hinted = True
            self._write(HINT)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the bar."""
        self._bar.close()

    def _figures(self, logs):
        val = any(name.startswith("val_") for name in logs)
        task = self.model.task
        end = f"_{task.metric if val else task.step_metric}"
        for name, value in logs.items():
            if name.endswith(end) and name.startswith("val_") == val:
                figure = scaled(value, task.unit)
                yield f"{name.removesuffix(end)} {figure:.1f}"

    def _speed(self, epoch, logs):
        seconds = logs["seconds"]
        yield f"{seconds:.1f} s"
        if seconds > 0:
            yield f"{self._steps * self._batch_size / seconds:.0f} images/s"
        now, done = time.monotonic(), (epoch + 1) * self._steps
        left = self._epochs * self._steps - done
        if left and done > self._told_step:
            rate = (now - self._told_at) / (done - self._told_step)
            yield f"{duration(rate * left)} to go"
        self._told_at, self._told_step = now, done

    def _write(self, line):
        self._bar.write(line, file=sys.stdout)
        sys.stdout.flush()
