"""Labels of classes that exclude each other: class numbers, or distributions."""

import typing

import keras
import numpy as np
from keras import ops

from tf_mskd.utils.errors import UserError
from tf_mskd.utils.types import Tensor


def read_class_labels(label: typing.Any, classes: int) -> Tensor:
    """Returns labels as int [B] class numbers or float32 [B, classes].

    Args:
        label: class numbers [B] or [B, 1] of any dtype, or one-hot or soft labels
            [B, classes].
        classes: int, width of the exits.

    Raises:
        UserError: for labels of another shape or kind.

    Example:
        >>> read_class_labels([[2.0], [0.0]], classes=3).numpy().tolist()
        [2, 0]
    """
    label, shape, dtype = as_labels(label, lambda found: _wrong(found, classes))
    if len(shape) == 2 and shape[1] == classes:
        return ops.cast(label, "float32")
    if len(shape) == 2 and shape[1] != 1:
        raise _wrong(f"{dtype} {text_of_shape(shape)}", classes)
    if len(shape) == 2:
        label = ops.squeeze(label, 1)
    return label if dtype in ("int32", "int64") else ops.cast(label, "int32")


def as_labels(
    label: typing.Any, refusal: typing.Callable[[str], UserError]
) -> tuple[Tensor, tuple[int | None, ...], str]:
    """Returns labels as one tensor of numbers, its shape and dtype.

    Args:
        label: anything that a tensor of rank 1 or 2 can be made of.
        refusal: function of what arrived, in words -> the error to raise.
    """
    try:
        label = ops.convert_to_tensor(label)
        shape = tuple(label.shape)
        dtype = keras.backend.standardize_dtype(label.dtype)
    except (ValueError, TypeError) as error:  # several targets, or of no known rank
        raise refusal(type(label).__name__) from error
    if dtype == "string" or len(shape) not in (1, 2):
        raise refusal(f"{dtype} {text_of_shape(shape)}")
    return label, shape, dtype


def text_of_shape(shape: tuple[int | None, ...]) -> str:
    """Returns a shape in words.

    Example:
        >>> text_of_shape((None, 3))
        '[B, 3]'
    """
    return "[" + ", ".join("B" if n is None else str(n) for n in shape) + "]"


def _wrong(arrived, classes):
    return UserError(
        f"Labels must be class numbers [B] or [B, 1], or one-hot or soft [B, {classes}]"
        f" as the exits have {classes} classes, got {arrived}: change the labels, or "
        "build the student with as many classes; further targets go in a dict beside "
        "'label'."
    )


def check_class_labels(label: np.ndarray, classes: int) -> None:
    """Refuses labels that are no classes.

    Args:
        label: array [N] or [N, 1] of class numbers, or [N, classes] of one-hot or soft
            labels; other shapes pass.
        classes: int >= 2, width of the exits.

    Raises:
        UserError: for numbers that are no class, and for rows that are no distribution.

    Example:
        >>> check_class_labels(np.array([[0.0], [2.0]]), classes=3)
    """
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
            f" {value}: several classes of one image are the task 'multi_label'."
        )
