"""Keeps the student of the best epoch by the validation split."""

import os
import typing

import keras

from tf_mskd.models.saving import save_model
from tf_mskd.utils.errors import UserError, nearest


class BestStudent(keras.callbacks.Callback):
    """Saves the student whenever the monitored validation accuracy rises.

    Epochs in which an exit of the student is not yet trained do not count.

    Args:
        path: path of the `.keras` file.
        monitor: str, a name in the epoch's logs; higher is better.

    Raises:
        UserError: at the end of an epoch whose logs lack the name.

    Example:
        >>> best = tf_mskd.callbacks.BestStudent("best.keras")
        >>> distiller.fit(
        ...     data, validation_data=held_out, callbacks=[best])  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike, monitor: str = "val_ensemble_accuracy"):
        super().__init__()
        self.path, self.monitor, self.best = path, monitor, float("-inf")

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Restores the best accuracy of the epochs before a resume."""
        for epoch in (logs or {}).get("history", ()):
            if epoch["phase"] == len(self.model.exits):
                self.best = max(self.best, epoch.get(self.monitor, self.best))

    def on_epoch_end(self, epoch: int, logs: typing.Any = None) -> None:
        """Saves if this epoch is the best so far."""
        if self.monitor not in logs:
            hint = nearest(self.monitor, logs)
            raise UserError(
                f"BestStudent monitors {self.monitor!r}, which is not in the logs{hint}"
                f" Known: {', '.join(logs)}; val_... needs validation_data."
            )
        complete = self.model.trained_exits == self.model.exits
        if complete and logs[self.monitor] > self.best:
            self.best = logs[self.monitor]
            save_model(self.model.student, self.path)
