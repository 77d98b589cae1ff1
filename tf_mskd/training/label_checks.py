"""Labels looked at as numbers: of arrays once, of streams before the steps see them."""

import contextlib
import itertools
import re
import types
import typing
from collections.abc import Callable

import keras
import numpy as np

from tf_mskd.tasks import Task
from tf_mskd.utils.errors import UserError

Check = Callable[[typing.Any], None]  # of labels [N, ...], raises UserError


def check_labels(label: typing.Any, task: Task, shape: tuple[int, ...]) -> None:
    """Refuses labels that a task does not take, by their values.

    Args:
        label: anything that an array [N, ...] can be made of; text is left to
            `Task.read_label`.
        task: `Task`.
        shape: shape of an exit's output.

    Raises:
        UserError: see `Task.check_label`.
    """
    label = np.asarray(label)
    if label.dtype.kind not in "OSU" and label.size:
        task.check_label(label, shape)


def checked(
    x: typing.Any, y: typing.Any, check: Check, keep: Callable | None = None
) -> typing.Any:
    """Looks at the labels of what `fit` and `evaluate` are given.

    Arrays are looked at here, as a whole; of a `PyDataset` or a generator the first
    batch; a `tf.data.Dataset` looks at each batch as its pipeline makes it.

    Args:
        x, y: as for `keras.Model.fit`.
        check: function of labels, see `check_labels`.
        keep: function of inputs and targets that is called with the first batch, or
            with the whole arrays; None for none. A `Dataset` calls it while training.

    Returns:
        x, or what to read in its place.

    Raises:
        UserError: for labels that are no classes; while training for a `Dataset`, see
            `explained`.
    """
    if y is not None or _is_arrays(x):
        _check_batch((x, y), check, keep)
    elif isinstance(x, keras.utils.PyDataset):
        _check_batch(x[0], check, keep)
    elif isinstance(x, types.GeneratorType):
        first = next(x, None)
        if first is None:
            return x
        _check_batch(first, check, keep)
        return (batch for batch in itertools.chain([first], x))
    elif keras.backend.backend() == "tensorflow":
        return _checked_dataset(x, check, keep)
    return x


def _is_arrays(x):
    leaves = keras.tree.flatten(x)
    return bool(leaves) and all(
        isinstance(v, np.ndarray) or keras.ops.is_tensor(v) for v in leaves
    )


def _check_targets(y, check):
    label = y.get("label") if isinstance(y, dict) else y
    if label is not None and not isinstance(label, list | tuple):
        check(label)


def _check_batch(batch, check, keep):
    batch = batch if isinstance(batch, tuple) else (batch,)
    if len(batch) > 1:
        _check_targets(batch[1], check)
    if keep:
        keep(*batch[:2])


def _checked_dataset(x, check, keep):
    import tensorflow as tf

    from tf_mskd.training.dataset_checks import checked_dataset

    if not isinstance(x, tf.data.Dataset):
        return x
    return checked_dataset(x, check, keep)


@contextlib.contextmanager
def explained() -> typing.Iterator[None]:
    """Raises what the pipeline of a `Dataset` refuses as the `UserError` it was."""
    try:
        yield
    except Exception as error:  # a TensorFlow error with the text inside
        found = re.search(r"UserError: (.*)", str(error))
        if found is None or isinstance(error, UserError):
            raise
        raise UserError(found[1]) from error
