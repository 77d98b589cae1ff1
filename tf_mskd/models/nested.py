"""Foreign graphs made ready for exits: nested models opened, taken names boxed."""

import inspect
import re
import typing
from collections import Counter
from collections.abc import Container

import keras

from tf_mskd.models import graph
from tf_mskd.utils import names as naming
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.private import call_again, fixed_training

OURS = re.compile(rf"exit_\d+_.*|{graph.BLOCK_END.pattern}")


def open_nested(model: keras.Model, names: Container[str]) -> keras.Model:
    """The same network without the nested models around some layers.

    Args:
        model: functional model.
        names: names of layers, some of which lie in nested functional models.

    Returns:
        functional model that calls the layers of those nested models itself; `model`
        where none of the layers is nested. A call with `training=False` keeps it.

    Raises:
        UserError: if such a nested model is called twice, or brings a second layer of
            one name.
    """
    calls = Counter(n.operation for n in graph.calls_to(model.outputs))
    around = [o for o in calls if _holds(o, names)]
    if not around:
        return model
    for operation in around:
        if calls[operation] > 1:
            raise UserError(
                f"The nested model {operation.name!r} is called {calls[operation]} "
                "times, so no layer in it has one output: take a layer outside of it."
            )
    known = {id(tensor): tensor for tensor in model.inputs}
    _replay(model.outputs, known, names, None)
    outputs = keras.tree.map_structure(lambda t: known[id(t)], model.output)
    nodes = graph.calls_to(keras.tree.flatten(outputs))
    found = Counter(o.name for o in {n.operation for n in nodes})
    twice = [name for name, count in found.items() if count > 1]
    if twice:
        raise UserError(
            f"A nested model has a layer {twice[0]!r}, and another layer has that "
            "name: rename one."
        )
    return keras.Model(model.input, outputs, name=model.name)


def nested_names(model: keras.Model) -> list[str]:
    """Names of all layers, those in nested functional models among them."""
    found = []
    for layer in model.layers:
        found.append(layer.name)
        if is_graph(layer):
            found += nested_names(layer)
    return found


def box_names(model: keras.Model) -> keras.Model:
    """The same network; layers whose names the library gives are boxed.

    Args:
        model: functional model. A layer of it may be called `embedding_1`.

    Returns:
        functional model, `model` where no such name occurs.
    """
    nodes = graph.calls_to(model.outputs)
    if not any(_is_taken(node) for node in nodes):
        return model
    known = {id(tensor): tensor for tensor in model.inputs}
    boxes: dict[int, Boxed] = {}  # a layer that is called twice stays one layer
    for node in nodes:
        if node.is_input:
            continue
        layer, options = node.operation, {}
        if _is_taken(node):
            box = boxes.setdefault(id(layer), Boxed(layer, name=f"own_{layer.name}"))
            options["operation"] = box
        made = keras.tree.flatten(call_again(node, known, **options))
        for old, new in zip(node.outputs, made, strict=True):
            known[id(old)] = new
    outputs = keras.tree.map_structure(lambda t: known[id(t)], model.output)
    return keras.Model(model.input, outputs, name=model.name)


def _is_taken(node):
    name = node.operation.name
    is_layer = isinstance(node.operation, keras.layers.Layer) and not node.is_input
    return is_layer and (naming.is_output(name) or OURS.fullmatch(name))


@keras.saving.register_keras_serializable(package="tf_mskd")
class Boxed(keras.layers.Layer):
    """Another layer under a name of its own.

    Args:
        layer: built Keras layer.
        name: str.

    Call as the layer; returns what it returns, with its mask.
    """

    def __init__(self, layer, name=None, **kwargs):
        super().__init__(name=name, autocast=False, **kwargs)
        self.layer = layer
        self.supports_masking = True
        self.built = True

    def call(self, inputs, *args, **kwargs):
        return self.layer(inputs, *args, **kwargs)

    def compute_mask(self, inputs, previous_mask=None):
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self):
        layer = keras.saving.serialize_keras_object(self.layer)
        return {"name": self.name, "layer": layer}

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(layer, name=config["name"])


def is_graph(operation: typing.Any) -> bool:
    """Returns whether a layer is a model with a graph of its own."""
    return isinstance(operation, keras.Model) and bool(
        getattr(operation, "outputs", None)
    )


def _holds(operation, names):
    if not is_graph(operation):
        return False
    inner = operation.layers
    return any(layer.name in names or _holds(layer, names) for layer in inner)


def _replay(tensors, known, names, training):
    for node in graph.calls_to(tensors, known):
        operation = node.operation
        fixed = fixed_training(node)
        fixed = training if fixed is None else fixed
        if _holds(operation, names):
            sources = [known[id(t)] for t in node.input_tensors]
            inside = dict(zip(map(id, operation.inputs), sources, strict=True))
            _replay(operation.outputs, inside, names, fixed)
            made = [inside[id(t)] for t in operation.outputs]
        else:
            options = {}
            if fixed is not None and _takes_training(operation):
                options = {"training": fixed}
            made = keras.tree.flatten(call_again(node, known, **options))
        for old, new in zip(node.outputs, made, strict=True):
            known[id(old)] = new


def _takes_training(operation):
    return "training" in inspect.signature(operation.call).parameters
