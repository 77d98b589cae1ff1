"""Tells logits from probabilities by numbers, whatever layer makes them."""

import typing

import keras
import numpy as np
from keras import ops

from tf_mskd.models import graph
from tf_mskd.utils.private import node_of
from tf_mskd.utils.types import Tensor

PLAIN = (  # layers whose last step is their `activation`
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
ROWS = 4
SMALLEST = 1e-7
HIGHEST = 1 + 1e-3  # probability, by rounding
WIDE = 1000.0  # inputs beyond any image's


@keras.saving.register_keras_serializable(package="tf_mskd")
class LogProbabilities(keras.layers.Layer):
    """Logits log(max(p, 1e-7)) in float32: their softmax is p.

    Call with probabilities [B, C] whose rows sum to 1.
    """

    def call(self, inputs):
        return ops.log(ops.maximum(ops.cast(inputs, "float32"), SMALLEST))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, "float32")


@keras.saving.register_keras_serializable(package="tf_mskd")
class LogOdds(keras.layers.Layer):
    """Logits log(p / (1 - p)) in float32, p within [1e-7, 1 - 1e-7].

    Call with probabilities [B, C], each of a yes-or-no question.
    """

    def call(self, inputs):
        p = ops.clip(ops.cast(inputs, "float32"), SMALLEST, 1 - SMALLEST)
        return ops.log(p) - ops.log1p(-p)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, "float32")


LOGITS = {  # kind of probabilities -> the layer that makes logits of them, in words how
    "softmax": (LogProbabilities, "logarithm"),
    "sigmoid": (LogOdds, "log odds"),
}


def kind_of_rows(rows: typing.Any) -> str:
    """What the numbers of some rows [N, C] are.

    Args:
        rows: array [..., C] of finite numbers.

    Returns:
        "softmax" if each row is >= 0 and sums to 1, "sigmoid" if all lie in [0, 1] and
        not all are equal, else "logits".

    Example:
        >>> kind_of_rows([[0.25, 0.75]]), kind_of_rows([[0.9, 0.8]])
        ('softmax', 'sigmoid')
        >>> kind_of_rows([[-1.0, 2.0]])
        'logits'
    """
    rows = np.asarray(rows, "float64")
    rows = rows.reshape(-1, rows.shape[-1])
    if not ((rows >= 0).all() and (rows <= HIGHEST).all()):
        return "logits"
    if rows.shape[-1] > 1 and (abs(rows.sum(-1) - 1) < 1e-2).all():
        return "softmax"
    return "logits" if np.ptp(rows) == 0 else "sigmoid"


def kind_of_output(model: keras.Model, tensor: Tensor) -> str:
    """What an output of a model is; see `kind_of_rows`.

    The last steps of the network, those without weights, run on random numbers. Where
    a layer of unknown make comes last, the whole network runs on random inputs, and
    on inputs of a wider range where its numbers look like probabilities by chance.

    Args:
        model: functional model.
        tensor: symbolic [B, C], one of its outputs.
    """
    random = np.random.default_rng(0)
    start, layer = _last_weights(tensor)
    if layer is None or isinstance(layer, PLAIN):
        shape = [ROWS if n is None else n for n in start.shape]
        values = ops.convert_to_tensor(3 * random.normal(size=shape), "float32")
        if layer is not None:
            values = layer.activation(values)
        known = {id(start): ops.cast(values, start.dtype)}
        (made,) = graph.replay([tensor], known)
        return kind_of_rows(ops.convert_to_numpy(ops.cast(made, "float32")))
    return _kind_by_running(model, tensor, random)


def _last_weights(tensor):
    """What the steps without weights at the end start from, and the layer there."""
    while True:
        node = node_of(tensor)
        layer = node.operation
        if node.is_input:
            return tensor, None
        if len(node.input_tensors) != 1 or len(node.outputs) != 1:
            return tensor, layer
        if getattr(layer, "weights", None):
            inner = getattr(layer, "outputs", None)  # a nested functional model
            if not inner or len(inner) != 1:
                return tensor, layer
            start, last = _last_weights(inner[0])
            return (tensor, last) if start is inner[0] else (tensor, layer)
        tensor = node.input_tensors[0]


def _kind_by_running(model, tensor, random):
    inputs, wide = [], []
    for spec in model.inputs:
        if None in spec.shape[1:]:
            return "logits"  # of no known size: the first batch will tell
        shape = (ROWS, *spec.shape[1:])
        is_float = keras.backend.is_float_dtype(spec.dtype)
        high = 256 if is_float or spec.dtype == "uint8" else 2
        values = random.integers(0, high, shape)
        inputs.append(ops.cast(values, spec.dtype))
        if is_float:
            wide.append(ops.cast(WIDE * (values - 127.5), spec.dtype))
    network = keras.Model(model.inputs, tensor)
    kind = kind_of_rows(_rows_of(network, inputs))
    if kind == "sigmoid" and len(wide) == len(inputs):
        # logits of small weights may lie in [0, 1] too, but nothing holds them there
        try:
            rows = _rows_of(network, wide)
        except Exception:  # a foreign network may refuse such inputs by any
            return kind
        if (rows < 0).any() or (rows > HIGHEST).any():
            return "logits"
    return kind


def _rows_of(network, inputs):
    rows = network(inputs if len(inputs) > 1 else inputs[0], training=False)
    return ops.convert_to_numpy(ops.cast(rows, "float32"))
