"""Labels looked at as numbers: of arrays once, of streams before the steps see them."""

import contextlib
import functools
import itertools
import re
import types
import typing
from collections.abc import Callable

import keras
import numpy as np

from tf_mskd.utils.errors import UserError


def check_labels(label: typing.Any, classes: int) -> None:
    """Refuses labels that are no classes.

    Args:
        label: array [N] or [N, 1] of class numbers, or [N, classes] of one-hot or soft
            labels; other shapes are left to `batch.read_targets`.
        classes: int >= 2, width of the exits.

    Raises:
        UserError: for numbers that are no class, and for rows that are no distribution.

    Example:
        >>> check_labels([[0.0], [2.0]], classes=3)
    """
    label = np.asarray(label)
    if label.dtype.kind in "OSU" or not label.size:
        return
    if label.ndim == 2 and label.shape[1] == classes:
        _check_distributions(label, classes)
    elif label.ndim == 1 or label.shape[1:] == (1,):
        _check_numbers(label.ravel(), classes)


def _check_numbers(label, classes):
    wrong = ~((label >= 0) & (label < classes))  # NaN is wrong as well
    if label.dtype.kind not in "biu":
        wrong |= label != np.floor(label)
    if wrong.any():
        value = label[wrong.argmax()].item()
        raise UserError(
            f"Labels must be class numbers 0..{classes - 1}, got {value}: number the "
            "classes from 0, or build the student with as many classes; targets that "
            "are no classes (regression) cannot be distilled."
        )


def _check_distributions(label, classes):
    sums = label.sum(1, dtype="float64")
    wrong = ~((label >= 0).all(1) & (abs(sums - 1) < 1e-2))
    if wrong.any():
        value = np.array2string(label[wrong.argmax()], precision=3, threshold=8)
        raise UserError(
            f"Labels [B, {classes}] must be one-hot or probabilities that sum to 1, got"
            f" {value}: several classes of one image (multi-label) cannot be distilled."
        )


def checked(
    x: typing.Any, y: typing.Any, classes: int, keep: Callable | None = None
) -> typing.Any:
    """Looks at the labels of what `fit` and `evaluate` are given.

    Arrays are looked at here, as a whole; of a `PyDataset` or a generator the first
    batch; a `tf.data.Dataset` looks at each batch as its pipeline makes it.

    Args:
        x, y: as for `keras.Model.fit`.
        classes: int, width of the exits.
        keep: function of inputs and targets that is called with the first batch, or
            with the whole arrays; None for none. A `Dataset` calls it while training.

    Returns:
        x, or what to read in its place.

    Raises:
        UserError: for labels that are no classes; while training for a `Dataset`, see
            `explained`.
    """
    if y is not None or _is_arrays(x):
        _check_batch((x, y), classes, keep)
    elif isinstance(x, keras.utils.PyDataset):
        _check_batch(x[0], classes, keep)
    elif isinstance(x, types.GeneratorType):
        first = next(x, None)
        if first is None:
            return x
        _check_batch(first, classes, keep)
        return (batch for batch in itertools.chain([first], x))
    elif keras.backend.backend() == "tensorflow":
        return _checked_dataset(x, classes, keep)
    return x


def _is_arrays(x):
    leaves = keras.tree.flatten(x)
    return bool(leaves) and all(
        isinstance(v, np.ndarray) or keras.ops.is_tensor(v) for v in leaves
    )


def _check_targets(y, classes):
    label = y.get("label") if isinstance(y, dict) else y
    if label is not None and not isinstance(label, list | tuple):
        check_labels(label, classes)


def _check_batch(batch, classes, keep):
    batch = batch if isinstance(batch, tuple) else (batch,)
    if len(batch) > 1:
        _check_targets(batch[1], classes)
    if keep:
        keep(*batch[:2])


def _checked_dataset(x, classes, keep):
    import tensorflow as tf

    from tf_mskd.training.dataset_checks import checked_dataset

    if not isinstance(x, tf.data.Dataset):
        return x
    return checked_dataset(x, functools.partial(check_labels, classes=classes), keep)


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
