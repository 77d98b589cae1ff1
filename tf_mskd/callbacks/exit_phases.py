"""Advances progressive training from exit to exit."""

from collections.abc import Sequence

import keras

from tf_mskd.training.schedules import phase_ends, phase_of


class ExitPhases(keras.callbacks.Callback):
    """Sets the Distiller's phase at the start of each epoch, from the epoch alone.

    Args:
        epochs: int > 0, length of the run.
        phase_epochs: ints, length of each phase; empty for equal lengths.

    Example:
        >>> distiller = tf_mskd.Distiller(student, teacher, phases="progressive")
        >>> distiller.fit(data, epochs=40, callbacks=[ExitPhases(40)])  # doctest: +SKIP
    """

    def __init__(self, epochs: int, phase_epochs: Sequence[int] = ()):
        super().__init__()
        self.epochs, self.phase_epochs = epochs, tuple(phase_epochs)

    def on_epoch_begin(self, epoch, logs=None):
        """Moves to the phase that this epoch belongs to."""
        ends = phase_ends(self.epochs, len(self.model.exits), self.phase_epochs)
        self.model.set_phase(phase_of(epoch, ends))
