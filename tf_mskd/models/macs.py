"""Counts the multiply-accumulates of a network, for one image."""

import math
from collections.abc import Iterable

import keras

from tf_mskd.models import graph
from tf_mskd.models.nested import Boxed
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.types import Tensor


def count_macs(model: keras.Model, output: str | Iterable[str] | None = None) -> int:
    """Multiply-accumulates of one image through the layers some outputs need.

    Counted: convolutions of one to three dimensions (with groups, depthwise, separable,
    transposed), Dense, EinsumDense, MultiHeadAttention and GroupQueryAttention
    (projections, scores and weighted sums), SimpleRNN, GRU and LSTM, alone, within
    Bidirectional or TimeDistributed, each time they are called, also inside nested
    models. Counted as nothing, as is usual: embeddings, normalizations, biases,
    activations, pooling, additions, and layers whose weights are all vectors, such as
    a scale of the channels.

    Args:
        model: functional model with a fixed image size.
        output: str or iterable of str, names of outputs; None for all of them.

    Returns:
        int.

    Raises:
        UserError: if an output is unknown, a size unknown, a nested model not
            functional, or a layer with matrices of a kind that is not known.

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
    return macs_of_tensors(tensors[name] for name in names)


def macs_of_tensors(tensors: Iterable[Tensor]) -> int:
    """Multiply-accumulates of all layer calls that lead to symbolic tensors."""
    return sum(_macs_of(node) for node in graph.calls_to(tensors))


def _macs_of(node):
    layer = node.operation
    if isinstance(layer, keras.Model):
        return _nested(node)
    sources = [t.shape for t in node.input_tensors]
    if not sources or not isinstance(layer, keras.layers.Layer):
        return 0
    return _of_layer(layer, sources, node.outputs[0].shape)


def _of_layer(layer, sources, made):
    for kind, rule in RULES:
        if isinstance(layer, kind):
            if any(None in shape[1:] for shape in (*sources, made)):
                raise UserError(
                    f"count_macs needs a fixed image size, but layer {layer.name!r} "
                    f"gets {tuple(sources[0])}. Build the model with one."
                )
            return rule(layer, sources, made)
    if not isinstance(layer, FREE) and any(map(_is_matrix, layer.weights)):
        raise UserError(
            f"count_macs does not know {layer.name!r}, a {type(layer).__name__} with "
            "weights: build the model of Keras' own layers, or count its parts."
        )
    return 0


def _is_matrix(weight):
    """Whether it has two sides or more; [1, 1, C], of a class token, is a vector."""
    return sum(n > 1 for n in weight.shape) > 1


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
    return macs_of_tensors(model.outputs)


def _area(shape):
    """Positions of a channels-last map [B, ..., C]."""
    return math.prod(shape[1:-1])


def _conv(layer, sources, made):
    source = sources[0]
    per_position = math.prod(layer.kernel_size) * source[-1] // layer.groups
    return _area(made) * per_position * made[-1]


def _depthwise(layer, sources, made):
    channels = sources[0][-1] * layer.depth_multiplier
    return _area(made) * math.prod(layer.kernel_size) * channels


def _separable(layer, sources, made):
    pointwise = sources[0][-1] * layer.depth_multiplier * made[-1]
    return _depthwise(layer, sources, made) + _area(made) * pointwise


def _transposed(layer, sources, made):
    source = sources[0]
    return _area(source) * math.prod(layer.kernel_size) * source[-1] * made[-1]


def _dense(layer, sources, made):
    return _area(made) * sources[0][-1] * made[-1]


def _einsum(layer, sources, made):
    """Entries of the output, times the sizes that the sum runs over."""
    left, _, right = layer.equation.replace(" ", "").partition("->")
    kernel = left.partition(",")[2]
    summed = [
        size
        for letter, size in zip(kernel, layer.kernel.shape, strict=True)
        if letter not in right
    ]
    return math.prod(made[1:]) * math.prod(summed)


def _attention(layer, sources, made):
    """Projections of query, key, value and output; scores and weighted sums."""
    query, value = sources[0], sources[1] if len(sources) > 1 else sources[0]
    key = sources[2] if len(sources) > 2 else value
    heads, kept, width, out = _sizes_of_heads(layer, made)
    long, short = _area(query), _area(value)
    projected = long * query[-1] * heads * width
    projected += short * kept * (key[-1] * width + value[-1] * out)
    scores = heads * long * short * (width + out)
    return projected + scores + long * heads * out * made[-1]


def _sizes_of_heads(layer, made):
    """(heads of the query, of key and value, width of a key, of a value)."""
    if isinstance(layer, keras.layers.GroupQueryAttention):
        kept, width = layer.num_key_value_heads, layer.head_dim
        return layer.num_query_heads, kept, width, width
    width = layer.key_dim
    return layer.num_heads, layer.num_heads, width, layer.value_dim or width


def _recurrent(layer, sources, made):
    """Per step: all gates read the input and the state before."""
    gates = {keras.layers.LSTM: 4, keras.layers.GRU: 3, keras.layers.SimpleRNN: 1}
    count = next(n for kind, n in gates.items() if isinstance(layer, kind))
    return sources[0][1] * count * layer.units * (sources[0][-1] + layer.units)


def _both_ways(layer, sources, made):
    ways = (layer.forward_layer, layer.backward_layer)
    return sum(_of_layer(one, sources[:1], made) for one in ways)


def _inside(layer, sources, made):
    return _of_layer(layer.layer, sources, made)


def _each_step(layer, sources, made):
    (source, *_) = sources
    step, out = (source[0], *source[2:]), (made[0], *made[2:])
    return source[1] * _of_layer(layer.layer, [step], out)


RULES = (
    (keras.layers.DepthwiseConv1D, _depthwise),
    (keras.layers.DepthwiseConv2D, _depthwise),
    (keras.layers.SeparableConv1D, _separable),
    (keras.layers.SeparableConv2D, _separable),
    (keras.layers.Conv1DTranspose, _transposed),
    (keras.layers.Conv2DTranspose, _transposed),
    (keras.layers.Conv3DTranspose, _transposed),
    (keras.layers.Conv1D, _conv),
    (keras.layers.Conv2D, _conv),
    (keras.layers.Conv3D, _conv),
    (keras.layers.Dense, _dense),
    (keras.layers.EinsumDense, _einsum),
    (keras.layers.MultiHeadAttention, _attention),
    (keras.layers.GroupQueryAttention, _attention),
    (keras.layers.LSTM, _recurrent),
    (keras.layers.GRU, _recurrent),
    (keras.layers.SimpleRNN, _recurrent),
    (keras.layers.Bidirectional, _both_ways),
    (keras.layers.TimeDistributed, _each_step),
    (Boxed, _inside),
)
FREE = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
    keras.layers.RMSNormalization,
    keras.layers.Normalization,
    keras.layers.Embedding,
    keras.layers.PReLU,
)
