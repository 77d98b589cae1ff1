"""Loads published PyTorch weights of the networks, without PyTorch.

The names are those of the CRD benchmark's networks (Tian, Krishnan, Isola, "Contrastive
Representation Distillation", ICLR 2020, arXiv 1910.10699). Published networks take
normalised images; those of this library take 0 .. 255 and scale inside, so `mean` and
`std` of `create_model` must be those of the published training.
"""

import pathlib
import re

import keras
import numpy as np

from tf_mskd.models import graph
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.private import node_of


def load_torch_weights(
    model: keras.Model, path_or_dict: str | pathlib.Path | dict
) -> keras.Model:
    """Loads into a network the weights of the same network published for PyTorch.

    Backbone and last exit are filled; heads of other exits keep what they have. Nothing
    is changed unless every name and shape fits.

    Args:
        model: model of `create_model` with its last exit.
        path_or_dict: path of an `.npz` file (see tools/convert_torch.py), or a dict of
            arrays by PyTorch name. `num_batches_tracked` is ignored.

    Returns:
        `model`.

    Raises:
        UserError: if names are missing or left over, or a shape differs.
    """
    state = {
        name: np.asarray(value)
        for name, value in _read(path_or_dict).items()
        if not name.endswith("num_batches_tracked")
    }
    plan = []
    for layer, torch_name in _torch_names(model):
        plan += _variables(layer, torch_name)
    _check_names(model, state, [name for name, _ in plan])
    arrays = []
    for name, variable in plan:
        array = _channels_last(state[name])
        if array.shape != tuple(variable.shape):
            raise UserError(
                f"{name!r} must become {tuple(variable.shape)} for {model.name}, got "
                f"{array.shape} (PyTorch {state[name].shape}). Match width, classes "
                "and input channels of the model to the checkpoint."
            )
        arrays.append(array)
    for (_, variable), array in zip(plan, arrays, strict=True):
        variable.assign(array)
    return model


def _read(path_or_dict):
    if hasattr(path_or_dict, "items"):
        return path_or_dict
    path = pathlib.Path(path_or_dict)
    if not path.is_file() or path.suffix != ".npz":
        raise UserError(
            f"PyTorch weights are read from an .npz file, got {str(path)!r}. Make one "
            "with tools/convert_torch.py."
        )
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _channels_last(array):
    """OIHW to HWIO, [out, in] to [in, out], vectors as they are."""
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim)
    return array.transpose(axes) if axes else array


def _check_names(model, state, expected):
    missing = [name for name in expected if name not in state]
    left_over = sorted(set(state) - set(expected))
    for names, what in ((missing, "lacks"), (left_over, "has unknown")):
        if names:
            raise UserError(
                f"The PyTorch weights do not fit {model.name}: the file {what} "
                f"{len(names)} of its names, first {names[0]!r}. Use the checkpoint of "
                "the same network, and a model with its last exit."
            )


def _variables(layer, torch_name):
    """The variables of a layer as (PyTorch name, variable) pairs."""
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
    return [(f"{torch_name}.{part}", v) for part, v in parts.items()]


def _torch_names(model):
    """(layer, PyTorch name) for every layer with published weights."""
    layers = {layer.name: layer for layer in model.layers}
    if "stem_bn" in layers:
        rule, names = _resnet_name, layers
    elif "stem_conv" in layers:
        rule, names = _wrn_name, layers
    elif "block_1_conv_1" in layers:
        return _vgg_names(model)
    else:
        raise UserError(
            "load_torch_weights knows the networks of create_model, got "
            f"{model.name!r}."
        )
    named = ((layer, rule(name)) for name, layer in names.items())
    return [(layer, torch_name) for layer, torch_name in named if torch_name]


BLOCK = re.compile(r"stage_(\d+)_block_(\d+)_(shortcut_)?(conv|bn)(?:_(\d+))?")


def _resnet_name(name):
    """The PyTorch name of a ResNet layer, or None if it has none."""
    fixed = {"stem_conv": "conv1", "stem_bn": "bn1", "exit_4": "linear"}
    match = BLOCK.fullmatch(name)
    if match is None:
        return fixed.get(name)
    stage, block, is_shortcut, kind, index = match.groups()
    start = f"layer{stage}.{int(block) - 1}"
    if is_shortcut:
        return f"{start}.shortcut.{0 if kind == 'conv' else 1}"
    return f"{start}.{kind}{index}"


def _wrn_name(name):
    """The PyTorch name of a wide ResNet's layer, or None if it has none."""
    fixed = {
        "stem_conv": "conv1",
        "preact_1": "block2.layer.0.bn1",
        "preact_2": "block3.layer.0.bn1",
        "preact_3": "bn1",
        "exit_3": "fc",
    }
    match = BLOCK.fullmatch(name)
    if match is None:
        return fixed.get(name)
    stage, block, is_shortcut, kind, index = match.groups()
    part = "convShortcut" if is_shortcut else f"{kind}{index}"
    return f"block{stage}.layer.{int(block) - 1}.{part}"


def _vgg_names(model):
    """As `_torch_names`. Convolution i is entry 3 i of its block, its BN 3 i + 1."""
    pairs = []
    for node in graph.calls_to(model.outputs):
        layer = node.operation
        match = re.fullmatch(r"block_(\d+)_conv_(\d+)", layer.name)
        if match:
            start, entry = f"block{int(match[1]) - 1}", 3 * (int(match[2]) - 1)
            pairs.append((layer, f"{start}.{entry}"))
        elif isinstance(layer, keras.layers.BatchNormalization):
            conv = node_of(node.input_tensors[0]).operation
            named = [name for other, name in pairs if other is conv]
            if named:
                start, entry = named[0].split(".")
                pairs.append((layer, f"{start}.{int(entry) + 1}"))
        elif layer.name == "exit_4":
            pairs.append((layer, "classifier"))
    return pairs
