"""Counts the multiply-accumulates of a network, for one image."""

import math
from collections.abc import Iterable

import keras

from tf_mskd.models import graph
from tf_mskd.utils.errors import UserError, unknown_name


def count_macs(model: keras.Model, output: str | Iterable[str] | None = None) -> int:
    """Multiply-accumulates of one image through the layers some outputs need.

    Counted: Conv2D (with groups), DepthwiseConv2D, SeparableConv2D, Conv2DTranspose and
    Dense, each time they are called, also inside nested models. Everything else
    (batch norm, biases, ReLU, pooling, additions) counts as nothing, as is usual.

    Args:
        model: functional model with a fixed image size.
        output: str or iterable of str, names of outputs; None for all of them.

    Returns:
        int.

    Raises:
        UserError: if an output is unknown, a size unknown, or a nested model not
            functional.

    Example:
        >>> image = keras.Input((4, 4, 3))
        >>> count_macs(keras.Model(image, keras.layers.Conv2D(8, 1)(image)))
        384
    """
    tensors = graph.output_tensors(model)
    names = [output] if isinstance(output, str) else output
    names = list(tensors if names is None else names)
    for name in names:
        if name not in tensors:
            raise unknown_name("output", name, tensors)
    return _count(tensors[name] for name in names)


def _count(tensors):
    return sum(_macs_of(node) for node in graph.calls_to(tensors))


def _macs_of(node):
    layer = node.operation
    if isinstance(layer, keras.Model):
        return _nested(node)
    for kind, rule in RULES:
        if isinstance(layer, kind):
            source, made = node.input_tensors[0].shape, node.outputs[0].shape
            if None in source[1:] or None in made[1:]:
                raise UserError(
                    f"count_macs needs a fixed image size, but layer {layer.name!r} "
                    f"gets {tuple(source)}. Build the model with one."
                )
            return rule(layer, source, made)
    return 0


def _nested(node):
    model = node.operation
    if not getattr(model, "outputs", None):
        raise UserError(
            f"count_macs cannot look into {model.name!r}, a nested model that is not "
            "functional. Count its parts one by one."
        )
    built, called = model.inputs[0].shape[1:], node.input_tensors[0].shape[1:]
    if built != called:
        raise UserError(
            f"count_macs needs the nested model {model.name!r} built for the size it "
            f"is called with, {called}, got {built}. Build it with that input_shape."
        )
    return _count(model.outputs)


def _area(shape):
    """Positions of a channels-last map [B, H, W, C]."""
    return math.prod(shape[1:-1])


def _conv(layer, source, made):
    per_position = math.prod(layer.kernel_size) * source[-1] // layer.groups
    return _area(made) * per_position * made[-1]


def _depthwise(layer, source, made):
    channels = source[-1] * layer.depth_multiplier
    return _area(made) * math.prod(layer.kernel_size) * channels


def _separable(layer, source, made):
    pointwise = source[-1] * layer.depth_multiplier * made[-1]
    return _depthwise(layer, source, made) + _area(made) * pointwise


def _transposed(layer, source, made):
    return _area(source) * math.prod(layer.kernel_size) * source[-1] * made[-1]


def _dense(layer, source, made):
    return _area(made) * source[-1] * made[-1]


RULES = (
    (keras.layers.DepthwiseConv2D, _depthwise),
    (keras.layers.SeparableConv2D, _separable),
    (keras.layers.Conv2DTranspose, _transposed),
    (keras.layers.Conv2D, _conv),
    (keras.layers.Dense, _dense),
)
