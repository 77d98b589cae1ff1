"""Loads published PyTorch weights of the networks, without PyTorch.

Published networks take normalised images; those of this library take 0 .. 255 and
scale inside, so `mean` and `std` of `create_model` must be those of the published
training. Whose names a network's weights have is told in `torch_names`.
"""

import difflib
import os
import typing

import keras
import numpy as np

from tf_mskd.models.state_files import read_state
from tf_mskd.models.torch_names import HEADS, torch_names
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.names import is_kind


def load_torch_weights(
    model: keras.Model, path_or_dict: str | os.PathLike | dict
) -> keras.Model:
    """Loads into a network the weights of the same network published for PyTorch.

    Backbone and last exit are filled; heads of other exits keep what they have. Nothing
    is changed unless every name and shape fits. PyTorch is not needed, and nothing that
    a file holds is executed.

    Args:
        model: model of `create_model` with its last exit; ResNets with the stem
            "imagenet" and MobileNetV2 take torchvision's weights, the others those of
            the CRD benchmark.
        path_or_dict: path of a `.pth`, `.pt` or `.safetensors` file or of an `.npz` of
            tools/convert_torch.py, or a dict of arrays by PyTorch name.
            `num_batches_tracked` is ignored.

    Returns:
        `model`.

    Raises:
        UserError: if a file cannot be read as weights alone, names are missing or left
            over, a shape differs, or no weights of such a network are published.

    Example:
        >>> model = create_model("resnet34", 1000, stem="imagenet",
        ...     input_shape=(224, 224, 3), mean=(0.485, 0.456, 0.406),
        ...     std=(0.229, 0.224, 0.225))  # doctest: +SKIP
        >>> load_torch_weights(model, "resnet34-b627a593.pth")  # doctest: +SKIP
    """
    plan, state = _plan(model), _state(path_or_dict)
    _check_names(model, state, plan)
    _assign(model, plan, state)
    return model


def init_torch_weights(
    model: keras.Model, path_or_dict: str | os.PathLike | dict, new_exit: bool = False
) -> list[keras.layers.Layer]:
    """Starts a network from published weights, of other classes too.

    As `load_torch_weights`, but the last exit keeps what it has where the file lacks it
    or has it for other classes.

    Args:
        model, path_or_dict: see `load_torch_weights`.
        new_exit: bool, whether the last exit keeps what it has in any case.

    Returns:
        list of the layers that got weights.

    Raises:
        UserError: see `load_torch_weights`.

    Example:
        >>> init_torch_weights(model, "resnet18-f37072fd.pth")  # doctest: +SKIP
    """
    plan, state = _plan(model), _state(path_or_dict)
    last = [slot for slot in plan if _is_of_exit(slot)]
    if new_exit or not all(_fits(slot, state) for slot in last):
        plan = [slot for slot in plan if not _is_of_exit(slot)]
        state = {n: v for n, v in state.items() if n.rpartition(".")[0] not in HEADS}
    _check_names(model, state, plan)
    _assign(model, plan, state)
    return list({id(slot.layer): slot.layer for slot in plan}.values())


class Slot(typing.NamedTuple):
    """A variable and where its values are: PyTorch's name, and its order of axes."""

    layer: keras.layers.Layer
    name: str
    variable: keras.Variable
    axes: tuple[int, ...]


def _plan(model):
    return [slot for pair in torch_names(model) for slot in _variables(*pair)]


def _state(given):
    given = given if hasattr(given, "items") else read_state(given)
    return {
        name: np.asarray(value)
        for name, value in given.items()
        if not name.endswith("num_batches_tracked")
    }


def _is_of_exit(slot):
    return is_kind(slot.layer.name, "exit")


def _fits(slot, state):
    if slot.name not in state:
        return False
    return _transposed(state[slot.name], slot.axes).shape == tuple(slot.variable.shape)


def _assign(model, plan, state):
    """Gives every variable its values, or none of them if one does not fit."""
    for slot in plan:
        if not _fits(slot, state):
            array = state[slot.name]
            raise UserError(
                f"{slot.name!r} must become {tuple(slot.variable.shape)} for "
                f"{model.name}, got {_transposed(array, slot.axes).shape} (PyTorch "
                f"{array.shape}). Match width, classes and input channels of the model "
                "to the checkpoint."
            )
    for slot in plan:
        slot.variable.assign(_transposed(state[slot.name], slot.axes))


def _transposed(array, axes):
    """The array with its axes in Keras' order, if it has as many."""
    return array.transpose(axes) if array.ndim == len(axes) else array


def _check_names(model, state, plan):
    expected = [slot.name for slot in plan]
    missing = [name for name in expected if name not in state]
    left_over = sorted(set(state) - set(expected))
    for names, others, what in (
        (missing, left_over or state, "lacks"),
        (left_over, expected, "has unknown"),
    ):
        if names:
            near = difflib.get_close_matches(names[0], others, n=1)
            hint = f" (nearest: {near[0]!r})" if near else ""
            raise UserError(
                f"The PyTorch weights do not fit {model.name}: the file {what} "
                f"{len(names)} of its names, first {names[0]!r}{hint}. Use the "
                "checkpoint of the same network, and a model with its stem and its "
                "last exit."
            )


def _variables(layer, torch_name):
    """The slots of a layer."""
    if isinstance(layer, keras.layers.BatchNormalization):
        parts = {
            "weight": layer.gamma,
            "bias": layer.beta,
            "running_mean": layer.moving_mean,
            "running_var": layer.moving_variance,
        }
    else:
        parts = {"weight": layer.kernel}
        if layer.bias is not None:
            parts["bias"] = layer.bias
    return [
        Slot(layer, f"{torch_name}.{part}", variable, _axes(layer, variable))
        for part, variable in parts.items()
    ]


def _axes(layer, variable):
    """PyTorch's axes in Keras' order: of a depthwise kernel [channels, 1, H, W]."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return (2, 3, 0, 1)
    return {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[len(variable.shape)]
