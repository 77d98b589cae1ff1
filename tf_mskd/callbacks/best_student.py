"""Keeps the student of the best epoch by the validation split."""

import os
import typing

import keras

from tf_mskd.models.saving import save_model
from tf_mskd.utils.errors import UserError, nearest


class BestStudent(keras.callbacks.Callback):
    """Saves the student whenever the monitored figure of the validation split rises.

    Epochs in which an exit of the student is not yet trained do not count.

    Args:
        path: path of the `.keras` file.
        monitor: str, a name in the epoch's logs; higher is better. None takes the
            ensemble's: "val_ensemble_accuracy" in classification.

    Raises:
        UserError: at the end of an epoch whose logs lack the name.

    Example:
        >>> best = tf_mskd.callbacks.BestStudent("best.keras")
        >>> distiller.fit(
        ...     data, validation_data=held_out, callbacks=[best])  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike, monitor: str | None = None):
        super().__init__()
        self.path, self.monitor, self.best = path, monitor, float("-inf")

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Restores the best figure of the epochs before a resume."""
        for epoch in (logs or {}).get("history", ()):
            if epoch["phase"] == len(self.model.exits):
                self.best = max(self.best, epoch.get(self._monitor(epoch), self.best))

    def _monitor(self, logs):
        task = self.model.task
        usual = [f"val_ensemble_{name}" for name in (task.metric, task.step_metric)]
        return self.monitor or next((n for n in usual if n in logs), usual[0])

    def on_epoch_end(self, epoch: int, logs: typing.Any = None) -> None:
        """Saves if this epoch is the best so far."""
        monitor = self._monitor(logs)
        if monitor not in logs:
            hint = nearest(monitor, logs)
            raise UserError(
                f"BestStudent monitors {monitor!r}, which is not in the logs{hint}"
                f" Known: {', '.join(logs)}; val_... needs validation_data."
            )
        complete = self.model.trained_exits == self.model.exits
        if complete and logs[monitor] > self.best:
            self.best = logs[monitor]
            save_model(self.model.student, self.path)
