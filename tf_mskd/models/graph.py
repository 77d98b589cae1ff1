"""Walks, cuts and recombines functional models; layers are shared, never copied."""

import re
from collections.abc import Container, Iterable

import keras

from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.names import is_kind, is_output, number, numbered
from tf_mskd.utils.private import call_again, node_of
from tf_mskd.utils.types import Tensor, Tensors

BLOCK_END = re.compile(r"stage_\d+_block_\d+_(relu|add)|feature_\d+")


def exit_names(outputs: keras.Model | Iterable[str]) -> list[str]:
    """Names of the exits among a model's outputs, shallow to deep.

    Args:
        outputs: a functional model, a dict by output name, or an iterable of names.

    Returns:
        list of str.

    Example:
        >>> exit_names(["feature_2", "exit_10", "exit_9"])
        ['exit_9', 'exit_10']
    """
    names = output_tensors(outputs) if hasattr(outputs, "outputs") else outputs
    return numbered(names, "exit")


def output_tensors(model: keras.Model) -> Tensors:
    """The outputs of a functional model as a dict by output name."""
    if isinstance(model, keras.Sequential):  # without `output` before its first call
        return {node_of(t).operation.name: t for t in model.outputs}
    if isinstance(model.output, dict):
        return dict(model.output)
    return dict(zip(model.output_names, model.outputs, strict=True))


def available_outputs(model: keras.Model) -> Tensors:
    """All tensors of a model that have a name of the library, outputs or not.

    Args:
        model: functional model.

    Returns:
        dict, name -> symbolic tensor: its outputs; `exit_k`, `feature_k`, `preact_k`,
        `embedding_k` and the outputs of auxiliary heads, wherever a layer makes them;
        and `block_1`, `block_2`, ..., the ends of all residual blocks, shallow to deep
        (those of the stages where a network has no such blocks).

    Example:
        >>> from tf_mskd.models import create_model
        >>> names = available_outputs(create_model("resnet18", 10, width=0.1))
        >>> [n for n in names if n.startswith("block")][-1], "feature_4" in names
        ('block_8', True)
    """
    made, ends = {}, {}
    for node in calls_to(model.outputs):
        name = node.operation.name
        if is_output(name) and _is_ours(node):
            made[name] = node.outputs[0]
        if BLOCK_END.fullmatch(name) and _is_ours(node):
            # the ReLU after an addition takes its place
            ends[name.removesuffix("_relu").removesuffix("_add")] = node.outputs[0]
    made.update({f"block_{k}": t for k, t in enumerate(ends.values(), start=1)})
    made.update(output_tensors(model))
    return made


def _is_ours(node):
    """Whether a layer with the name of an output makes it, and is no user's own."""
    rank = len(node.outputs[0].shape)
    if is_kind(node.operation.name, "feature") or is_kind(
        node.operation.name, "preact"
    ):
        return rank == 4 or isinstance(node.operation, keras.layers.Identity)
    return rank == 2 or not is_kind(node.operation.name, "embedding")


def calls_to(tensors: Iterable[Tensor], known: Container[int] = ()) -> list:
    """All layer calls that lead to some tensors, each after the calls it needs.

    Args:
        tensors: iterable of symbolic tensors.
        known: container of tensor ids where the walk stops.

    Returns:
        list of Keras nodes (`node.operation`, `node.input_tensors`, `node.outputs`).
    """
    done, order = set(), []
    stack = [(node_of(t), False) for t in tensors if id(t) not in known]
    while stack:  # not recursive: deep networks would pass Python's recursion limit
        node, is_ready = stack.pop()
        if id(node) in done:
            continue
        if is_ready:
            done.add(id(node))
            order.append(node)
            continue
        stack.append((node, True))
        inputs = [t for t in node.input_tensors if id(t) not in known]
        stack.extend((node_of(t), False) for t in inputs)
    return order


def replay(
    tensors: Iterable[Tensor],
    known: dict[int, Tensor],
    renamed: dict[int, str] | None = None,
) -> list[Tensor]:
    """Calls the layers that lead to some tensors again, on other inputs.

    Args:
        tensors: iterable of symbolic tensors to make again.
        known: dict, id of a tensor -> tensor to take in its place. Grows by all tensors
            made here.
        renamed: dict, id of a tensor -> name of an identity layer to put behind it.

    Returns:
        list of the new tensors.
    """
    for node in calls_to(tensors, known):
        made = keras.tree.flatten(call_again(node, known))
        for old, new in zip(node.outputs, made, strict=True):
            if renamed and id(old) in renamed:
                new = keras.layers.Identity(name=renamed[id(old)])(new)
            known[id(old)] = new
    return [known[id(tensor)] for tensor in tensors]


def sub_model(model: keras.Model, names: str | Iterable[str]) -> keras.Model:
    """A model with some of the outputs, and only the layers those need.

    Args:
        model: functional model.
        names: str or iterable of str, of `available_outputs`.

    Returns:
        functional model with a dict output; its variables are those of `model`.

    Raises:
        UserError: if the model makes no output of that name, or no name is given.

    Example:
        >>> from tf_mskd.models import create_model
        >>> deep = create_model("resnet10", 10, exits="all", width=0.1)
        >>> list(sub_model(deep, "exit_2").output)
        ['exit_2']
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise UserError("sub_model needs one output name or more, got none.")
    made = available_outputs(model)
    for name in names:
        if name not in made:
            raise unknown_name("output", name, made)
    return keras.Model(model.input, {n: made[n] for n in names}, name=model.name)


@keras.saving.register_keras_serializable(package="tf_mskd")
class StopGradient(keras.layers.Layer):
    """Passes a tensor of any shape on and lets no gradient back."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        return keras.ops.stop_gradient(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape


def detach_stages(model: keras.Model) -> keras.Model:
    """The same network, each part of which learns from its own exit alone.

    Behind `feature_k` of every exit k but the deepest stands a stop-gradient, and
    deeper layers read the map behind it. With all exits these are all stage boundaries;
    stages between two exits stay together, as no loss would reach them alone. The
    numbers that come out are those of `model`.

    Args:
        model: functional model with named outputs, two exits or more.

    Returns:
        functional model with the same outputs and the same variables (in an order of
        its own).

    Raises:
        UserError: if there is nothing to cut, or the graph has a path around a cut.
    """
    outputs = output_tensors(model)
    for name in outputs:
        if not is_output(name):
            raise UserError(
                f"detach_stages cannot place output {name!r}: expected names such as "
                "'exit_2'. Leave it out with sub_model."
            )
    exits = exit_names(outputs)
    if len(exits) < 2:
        raise UserError(
            f"detach_stages needs two exits or more to cut between, got {exits}. Build "
            "the model with more exits."
        )
    maps = {n.operation.name: n.outputs[0] for n in calls_to(model.outputs)}
    # One part after the other is called again, each on what the cut before it passes
    # on: whatever else a part read would get gradients of deeper exits.
    detached, known = {}, {id(tensor): tensor for tensor in model.inputs}
    for name in exits:
        last = name == exits[-1]
        part = {
            n: t
            for n, t in outputs.items()
            if n not in detached and (last or _belongs(n, t, number(name), maps))
        }
        feature = f"feature_{number(name)}"
        cut = maps.get(feature)
        if not last and cut is None:
            raise UserError(f"detach_stages cannot cut: no layer {feature!r} exists.")
        targets = [*part.values()] + ([] if last else [cut])
        _refuse_detour(name, calls_to(targets, known), known)
        detached.update(zip(part, replay(targets, known), strict=False))
        if not last:
            stopped = StopGradient(name=f"stop_gradient_{number(name)}")
            known = {id(cut): stopped(known[id(cut)])}
    return keras.Model(model.input, {n: detached[n] for n in outputs}, name=model.name)


def _belongs(name, tensor, k, maps):
    """Whether an output is made at or before the cut behind stage k."""
    if number(name) != k:
        return number(name) < k
    # In a pre-activation network `preact_k` is the first layer behind the cut. Made on
    # both sides of it, its batch norm would update its statistics twice a step.
    cut = maps.get(f"feature_{k}")
    below = {id(t) for node in calls_to([tensor]) for t in node.input_tensors}
    return not (is_kind(name, "preact") and id(cut) in below)


def _refuse_detour(name, calls, known):
    """Raises if the layers of a part read anything but the cut in front of it."""
    for node in calls:
        if node.is_input and not any(id(t) in known for t in node.outputs):
            raise UserError(
                f"detach_stages cannot cut: {name!r} also reads the image by a path "
                "around the feature map in front of it. Choose taps on all paths."
            )
