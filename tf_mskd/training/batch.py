"""What a batch delivers beside its inputs, in the one form that the steps compute with.

The functions work on symbols and are idempotent: Keras' own steps and the Distiller's
call them on what they have at hand.
"""

import typing

import keras
from keras import ops

from tf_mskd.tasks import Task
from tf_mskd.tasks.class_labels import text_of_shape
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.types import Tensor, Tensors


def read_targets(y: typing.Any, task: Task, shape: tuple[int, ...]) -> Tensors:
    """Returns the targets of a batch as a dict; bare labels are {"label": labels}.

    Args:
        y: labels, a dict of targets with or without "label", or None.
        task: `Task`, which reads the labels.
        shape: shape of an exit's output.

    Returns:
        dict; "label", if there is one, as `Task.read_label` makes it.

    Raises:
        UserError: for labels of another shape or kind.

    Example:
        >>> from tf_mskd.tasks import create_task
        >>> task = create_task("classification")
        >>> read_targets([[2.0], [0.0]], task, (3,))["label"].numpy().tolist()
        [2, 0]
    """
    targets = dict(y) if isinstance(y, dict) else {"label": y}
    label = targets.pop("label", None)
    if label is None:
        return targets
    return {"label": task.read_label(label, shape), **targets}


def read_weight(sample_weight: typing.Any, x: typing.Any) -> Tensor | None:
    """Returns the weights of the images of a batch.

    Args:
        sample_weight: [B], [B, 1], a number for the whole batch, a dict of equal ones
            (Keras repeats an array of weights for each entry of a dict of targets), or
            None.
        x: any tree of inputs [B, ...].

    Returns:
        float32 [B] or None.

    Raises:
        UserError: for weights of another shape.

    Example:
        >>> read_weight([[1], [3]], x=np.zeros((2, 8))).numpy().tolist()
        [1.0, 3.0]
    """
    if isinstance(sample_weight, dict):
        weights = sample_weight
        sample_weight = weights.get("label", next(iter(weights.values())))
    if sample_weight is None:
        return None
    weight = ops.cast(ops.convert_to_tensor(sample_weight), "float32")
    shape = tuple(weight.shape)
    if not shape:
        return ops.broadcast_to(weight, (num_rows(x),))
    if len(shape) == 2 and shape[1] == 1:
        return ops.squeeze(weight, 1)
    if len(shape) != 1:
        raise UserError(
            "Sample weights must be one for each image, [B] or [B, 1], got "
            f"{text_of_shape(shape)}: take their mean over the further axes."
        )
    return weight


def num_rows(x: typing.Any) -> typing.Any:
    """Returns B of any tree of tensors [B, ...], an int or int scalar tensor."""
    return ops.shape(keras.tree.flatten(x)[0])[0]
