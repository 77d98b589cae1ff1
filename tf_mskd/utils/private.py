"""All private names of Keras and TensorFlow that the library uses.

They hold for Keras 3.15 and TensorFlow 2.21; each function says which public way is
missing. What a later version renames is mended here and nowhere else. Two subclasses
read a protected name of their base class, as Keras' own do: `Distiller`
(`_loss_tracker`) and `SGD` (`_get_variable_index`).
"""

import collections
import contextlib
import typing
from collections.abc import Iterator


def node_of(tensor) -> typing.Any:
    """Returns the layer call that made a symbolic tensor.

    Keras 3.15: no public way leads from a tensor to its call. What comes back is Keras'
    `Node`: `operation`, `input_tensors`, `outputs`, `is_input`.
    """
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def call_again(node, known: dict, operation=None, **changed: typing.Any) -> typing.Any:
    """Calls a node's layer with its arguments, tensors replaced; returns its outputs.

    Keras 3.15: `keras.models.clone_model` calls layers again too, but on whole models,
    from their inputs, and only on symbolic tensors.

    Args:
        node: what `node_of` returns.
        known: dict, id of a symbolic tensor -> tensor to take in its place.
        operation: what to call in the place of the node's own layer, or None.
        **changed: named arguments to call with instead of the node's own.
    """
    arguments, options = node.arguments.fill_in(known)
    operation = operation or node.operation
    return operation(*arguments, **{**options, **changed})


def fixed_training(node) -> bool | None:
    """Returns the `training` that a call was written with, None where it was not.

    Keras 3.15: no public way leads from a call to its arguments.
    """
    return node.arguments.kwargs.get("training")


def all_layers(model) -> list:
    """Returns the model and all its layers, also those inside other layers.

    Keras 3.15: `model.layers` does not look into nested models and composite layers.
    """
    return model._flatten_layers()


@contextlib.contextmanager
def fresh_names() -> Iterator[None]:
    """Numbers the layers that are built within from 1, whatever was built before.

    Keras 3.15: the public reset, `keras.utils.clear_session`, clears policies too.
    """
    from keras.src.backend.common import global_state

    counts = "object_name_uids"
    before = global_state.get_global_attribute(counts)
    global_state.set_global_attribute(counts, collections.defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute(counts, before)


def direction_of(metric) -> str | None:
    """Returns whether a metric is to rise, "up", or to fall, "down"; None if unknown.

    Keras 3.15: `EarlyStopping(mode="auto")` and its like read the attribute.
    """
    return getattr(metric, "_direction", None)


def keep_branches(operation):
    """Keeps the branches of a `tf.cond` functions, which run only when taken.

    TensorFlow 2.21: no public switch for the attribute.
    """
    from tensorflow.core.framework import attr_value_pb2

    inlined = attr_value_pb2.AttrValue(b=False)
    operation._set_attr("_lower_using_switch_merge", inlined)


def one_operation(function) -> typing.Any:
    """Returns the function as one operation of a graph, which no pass inlines.

    TensorFlow 2.21: the argument is public, the attribute's name is not.
    """
    import tensorflow as tf

    attributes = {"_noinline": True}
    return tf.function(function, autograph=False, experimental_attributes=attributes)


def calibrate_only(converter):
    """Makes a TFLite converter of int8 stop after it has measured the ranges.

    TensorFlow 2.21: the public converter quantizes all operations or none.
    """
    converter._experimental_calibrate_only = True


def tflite_subgraphs(content: bytes) -> list:
    """Returns the subgraphs of a TFLite file: `operators`, `tensors`, `outputs`.

    TensorFlow 2.21: the public interpreter does not list what a file's operations make.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0)).subgraphs


def quantize(calibrated: bytes, names: list[str], kinds: list[str]) -> bytes:
    """Returns a calibrated TFLite file as int8, but for some of its operations.

    TensorFlow 2.21: the public converter has no such switch; its experimental
    QuantizationDebugger calls the same function.

    Args:
        calibrated: a file of a converter after `calibrate_only`.
        names: tensors whose operations stay as they are.
        kinds: kinds of operations that stay as they are, such as "TOPK_V2".
    """
    from tensorflow.lite.python.convert import mlir_quantize

    return mlir_quantize(calibrated, denylisted_nodes=names, denylisted_ops=kinds)
