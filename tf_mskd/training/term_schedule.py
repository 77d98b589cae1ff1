"""Sets the weights of loss terms in each epoch, as the method schedules them."""

import keras


class TermSchedule(keras.callbacks.Callback):
    """Sets the factors of `Method.schedule` at the start of each epoch.

    `Distiller.fit` adds one by itself. The factors follow from the epoch and the logs
    before it, so that a resumed run sets the same ones.
    """

    def on_train_begin(self, logs=None):
        """Starts from the logs of the epochs before a resume."""
        self._history = list((logs or {}).get("history", ()))

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the weights of this epoch."""
        method, epochs = self.model.method, self.params["epochs"]
        history = self._history[:epoch]
        self.model.set_term_factors(method.schedule(epoch, epochs, history))

    def on_epoch_end(self, epoch, logs=None):
        """Stores the logs for the schedules of later epochs."""
        self._history.append(dict(logs or {}))
