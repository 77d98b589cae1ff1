"""One progress bar for the whole run, and one printed line per epoch."""

import sys
import typing

import keras
import tqdm

from tf_mskd.utils.units import scaled


class Progress(keras.callbacks.Callback):
    """Shows how far the run is, when it will end, and the metrics of each epoch.

    The bar is drawn on a terminal only; a log file gets the lines alone.
    """

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Draws the bar, with the steps that an earlier start has done filled in."""
        self._epochs, self._steps = self.params["epochs"], self.params["steps"]
        self._bar = tqdm.tqdm(
            total=self._epochs * self._steps,
            initial=(logs or {}).get("first_step", 0),
            unit="step",
            smoothing=0.1,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remembers the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Moves the bar."""
        done = self._epoch * self._steps + batch + 1
        self._bar.update(done - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: typing.Any = None) -> None:
        """Prints the epoch's line: the figure of each exit."""
        width = len(str(self._epochs))
        parts = [f"epoch {epoch + 1:{width}}/{self._epochs}"]
        parts.append(f"loss {logs['loss']:.3f}")
        val = any(name.startswith("val_") for name in logs)
        task = self.model.task
        end = f"_{task.metric if val else task.step_metric}"
        for name, value in logs.items():
            if name.endswith(end) and name.startswith("val_") == val:
                figure = scaled(value, task.unit)
                parts.append(f"{name.removesuffix(end)} {figure:.1f}")
        parts.append(f"{logs['seconds']:.1f} s")
        self._bar.write("  ".join(parts), file=sys.stdout)
        sys.stdout.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the bar."""
        self._bar.close()
