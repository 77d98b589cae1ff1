"""The names that published PyTorch weights have for the layers of a network.

Networks for small images: those of the CRD benchmark (Tian, Krishnan, Isola,
"Contrastive Representation Distillation", ICLR 2020, arXiv 1910.10699). ResNets with
the ImageNet stem, and MobileNetV2: those of torchvision (`torchvision.models`).
"""

import re

import keras

from tf_mskd.models import graph, mobilenet
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.private import node_of

HEADS = ("fc", "linear", "classifier", "classifier.1")  # of any of these networks


def torch_names(model: keras.Model) -> list[tuple[keras.layers.Layer, str]]:
    """The layers of a network that have published weights, and their PyTorch names.

    Args:
        model: model of `create_model`.

    Returns:
        list of (layer, name), such as ("stage_2_block_1_conv_1", "layer2.0.conv1").

    Raises:
        UserError: if the network is none that weights are published for.

    Example:
        >>> from tf_mskd.models import create_model
        >>> model = create_model("resnet10", 10, width=0.1, stem="imagenet")
        >>> [(layer.name, name) for layer, name in torch_names(model)][:3]
        [('stem_conv', 'conv1'), ('stem_bn', 'bn1'),
         ('stage_1_block_1_conv_1', 'layer1.0.conv1')]
    """
    layers = {layer.name: layer for layer in model.layers}
    if "block_1_conv_1" in layers:
        return _vgg_names(model)
    rule = _rule(layers)
    if rule is None:
        raise UserError(
            "load_torch_weights knows the ResNets, wide ResNets, VGGs and mobilenet_v2 "
            f"of create_model, got {model.name!r}."
        )
    named = ((layer, rule(name)) for name, layer in layers.items())
    return [(layer, name) for layer, name in named if name]


def _rule(layers):
    """The function of a layer's name that gives the PyTorch name, None without one."""
    if "stage_1_block_1_dw_1" in layers:  # MobileNetV1
        return None
    if "stage_1_block_1_dw_2" in layers:
        return _mobilenet_v2_name
    if "stem_pool" in layers:
        return _torchvision_name
    if "stem_bn" in layers:
        return _resnet_name
    return _wrn_name if "stem_conv" in layers else None


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


def _torchvision_name(name):
    """The name in torchvision of a ResNet layer, or None if it has none."""
    if name == "exit_4":
        return "fc"
    torch_name = _resnet_name(name)
    return torch_name and torch_name.replace(".shortcut.", ".downsample.")


MOBILE_BLOCK = re.compile(r"stage_(\d+)_block_(\d+)_(conv|dw|bn)_(\d)")


def _mobilenet_v2_name(name):
    """The name in torchvision of a MobileNetV2 layer, or None if it has none.

    In each block entry i is a pair of convolution and batch norm, except for the last,
    a convolution without ReLU6 whose batch norm is the next entry.
    """
    last = mobilenet.V2_BLOCKS + 1
    fixed = {
        "stem_conv": "features.0.0",
        "stem_bn": "features.0.1",
        "stage_4_conv": f"features.{last}.0",
        "preact_4": f"features.{last}.1",
        "exit_4": "classifier.1",
    }
    match = MOBILE_BLOCK.fullmatch(name)
    if match is None:
        return fixed.get(name)
    stage, block, kind, step = match.groups()
    number = mobilenet.v2_block_number(int(stage), int(block))
    # the first block has no expansion: its steps are 2 and 3 of the others'
    entry = int(step) - (2 if number == 1 else 1)
    start = f"features.{number}.conv"
    if step == "3":
        return f"{start}.{entry if kind == 'conv' else entry + 1}"
    return f"{start}.{entry}.{1 if kind == 'bn' else 0}"


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
