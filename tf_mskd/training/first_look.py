"""A look at what the teacher makes of the first examples, before a student follows."""

import typing

import keras
import numpy as np

from tf_mskd.models.graph import exit_names
from tf_mskd.models.probabilities import LOGITS, kind_of_rows
from tf_mskd.training.chance import warn_at_chance
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.units import shown
from tf_mskd.utils.warn import warn

ENOUGH = 64  # numbers in [0, 1] that are hardly chance
MOST = 256  # examples: those of a batch for several devices may be too many for one


class FirstLook(keras.callbacks.Callback):
    """Runs the teacher on the first batch that it is given, once.

    One line tells how good it is, a warning that it is at chance level. It looks when
    training begins, or after the first step where the batch passes by only then: a
    `tf.data.Dataset` would deliver other batches after an iteration more.

    Args:
        batch_size: int, of arrays that are a whole data set; None for the most.
        verbose: bool, whether that line is printed.

    Raises:
        UserError: if exits of the teacher are probabilities.
    """

    def __init__(self, batch_size: int | None, verbose: bool):
        super().__init__()
        self._rows, self._verbose = min(batch_size or MOST, MOST), verbose
        self._batch: typing.Any = None
        self._is_waiting = True

    def keep(self, x: typing.Any, y: typing.Any = None) -> None:
        """Keeps the first rows of the first batch for the look.

        Args:
            x: any tree of inputs [B, ...].
            y: labels, a dict of targets or None, as for `fit`.
        """
        if not self._is_waiting:
            return
        self._is_waiting = False
        leaves = [v for v in keras.tree.flatten((x, y)) if v is not None]
        if all(hasattr(v, "__array__") for v in leaves):  # sparse ones are passed over
            self._batch = keras.tree.map_structure(self._first_rows, (x, y))

    def _first_rows(self, values):
        return None if values is None else np.array(values[: self._rows])

    def on_train_begin(self, logs=None):
        """Looks at what came from arrays, a `PyDataset` or a generator."""
        self._look()

    def on_train_batch_begin(self, batch, logs=None):
        """Looks, from the second step on, at what a `Dataset` has delivered."""
        self._look()

    def on_epoch_end(self, epoch, logs=None):
        """Looks where the epoch was one step."""
        self._look()

    def _look(self):
        if self._batch is None:
            return
        (x, y), self._batch = self._batch, None
        targets = self.model.read_targets(y)
        logits = self._logits(x, targets)
        for name, rows in logits.items():
            kind = kind_of_rows(rows)
            if kind != self.model.task.probabilities:
                continue
            text = (
                f"{name} of the teacher {self.model.teacher.name!r} must be logits, "
                f"got probabilities ({kind}) on the first batch: build it without its "
                f"last activation, or return their {LOGITS[kind][1]}."
            )
            if kind == "softmax":
                raise UserError(text)
            if rows.size >= ENOUGH:  # logits too may lie in [0, 1]
                warn(f"it seems that {text}")
        if "label" in targets and logits:
            self._report(logits, targets["label"])

    def _logits(self, x, targets):
        outputs = targets.get("teacher")
        if outputs is None:
            outputs = self.model.teacher(x, training=False)
        convert = keras.ops.convert_to_numpy
        return {n: convert(outputs[n]).astype("float32") for n in exit_names(outputs)}

    def _report(self, logits, labels):
        task, name = self.model.task, self.model.teacher.name
        where = f"the first {len(labels)} examples"
        if self._verbose:
            means = {n: np.mean(task.quality(labels, z)) for n, z in logits.items()}
            exits = ", ".join(f"{n} {shown(v, task.unit)}" for n, v in means.items())
            print(f"teacher {name!r} on {where}: {exits}")
        if task.one_class:
            labels = np.asarray(labels)
            labels = labels.argmax(-1) if labels.ndim == 2 else labels
            warn_at_chance(name, logits, labels, where)
