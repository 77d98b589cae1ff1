"""Looks at the batches of a `tf.data.Dataset` as they pass, in the order they have."""

import functools
import typing
from collections.abc import Callable

import numpy as np
import tensorflow as tf


def checked_dataset(
    data: tf.data.Dataset, check: Callable, keep: Callable | None = None
) -> tf.data.Dataset:
    """Returns the same batches; each one's labels are looked at, one batch is kept.

    Args:
        data: `tf.data.Dataset` as for `keras.Model.fit`.
        check: function of the labels of a batch, an array.
        keep: function of inputs and targets, as arrays, that the first batch is handed
            to; None for none.
    """
    spec = data.element_spec
    label = _label(spec if isinstance(spec, tuple) else (spec,))
    has_labels = isinstance(label, tf.TensorSpec) and label.dtype != tf.string
    parts = spec[:2] if isinstance(spec, tuple) else (spec,)
    dense = all(isinstance(s, tf.TensorSpec) for s in tf.nest.flatten(parts))
    keep = keep if dense else None
    if not has_labels and keep is None:
        return data
    wanted = [keep is not None]  # a list, which the look empties

    def look(*label):
        if label:
            check(label[0])
        return np.bool_(bool(wanted) and wanted.pop())

    def hand_over(*arrays):
        keep(*tf.nest.pack_sequence_as(parts, arrays))
        return np.bool_(True)

    def no_more():
        return tf.constant(False)

    def pass_on(*batch):
        labels = [_label(batch)] if has_labels else []
        first = tf.numpy_function(look, labels, tf.bool)
        if keep:  # a branch that is not taken costs nothing
            flat = tf.nest.flatten(batch[:2])
            taken = functools.partial(tf.numpy_function, hand_over, flat, tf.bool)
            tf.cond(tf.reshape(first, []), taken, no_more)
        return batch if isinstance(spec, tuple) else batch[0]

    return data.map(pass_on)


def _label(batch: tuple) -> typing.Any:
    """The labels of a batch, or their spec; None without."""
    targets = batch[1] if len(batch) > 1 else None
    return targets.get("label") if isinstance(targets, dict) else targets
