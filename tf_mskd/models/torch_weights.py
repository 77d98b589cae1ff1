"""Loads published PyTorch weights of the networks, without PyTorch.

Published networks take normalised images; those of this library take 0 .. 255 and
scale inside, so `mean` and `std` of `create_model` must be those of the published
training. Whose names a network's weights have is told in `torch_names`.
"""

import os

import keras
import numpy as np

from tf_mskd.models.state_files import read_state
from tf_mskd.models.torch_names import torch_names
from tf_mskd.utils.errors import UserError


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
    plan = []
    for layer, torch_name in torch_names(model):
        plan += _variables(layer, torch_name)
    given = path_or_dict
    given = given if hasattr(given, "items") else read_state(given)
    state = {
        name: np.asarray(value)
        for name, value in given.items()
        if not name.endswith("num_batches_tracked")
    }
    _check_names(model, state, [name for name, _, _ in plan])
    arrays = []
    for name, variable, axes in plan:
        array = _transposed(state[name], axes)
        if array.shape != tuple(variable.shape):
            raise UserError(
                f"{name!r} must become {tuple(variable.shape)} for {model.name}, got "
                f"{array.shape} (PyTorch {state[name].shape}). Match width, classes "
                "and input channels of the model to the checkpoint."
            )
        arrays.append(array)
    for (_, variable, _), array in zip(plan, arrays, strict=True):
        variable.assign(array)
    return model


def _transposed(array, axes):
    """The array with its axes in Keras' order, if it has as many."""
    return array.transpose(axes) if array.ndim == len(axes) else array


def _check_names(model, state, expected):
    missing = [name for name in expected if name not in state]
    left_over = sorted(set(state) - set(expected))
    for names, what in ((missing, "lacks"), (left_over, "has unknown")):
        if names:
            raise UserError(
                f"The PyTorch weights do not fit {model.name}: the file {what} "
                f"{len(names)} of its names, first {names[0]!r}. Use the checkpoint of "
                "the same network, and a model with its stem and its last exit."
            )


def _variables(layer, torch_name):
    """The variables of a layer as (PyTorch name, variable, order of its axes)."""
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
    return [(f"{torch_name}.{part}", v, _axes(layer, v)) for part, v in parts.items()]


def _axes(layer, variable):
    """PyTorch's axes in Keras' order: of a depthwise kernel [channels, 1, H, W]."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return (2, 3, 0, 1)
    return {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[len(variable.shape)]
