"""Exits: from the map of a stage to logits, and exits for any functional model.

The rule of names: exit k makes `embedding_k` [B, D], its pooled vector, and `exit_k`
[B, classes], its logits in float32. The layer that makes an output carries its name.
"""

from collections.abc import Sequence

import keras

from tf_mskd.models import blocks, graph
from tf_mskd.models.backbone import Backbone, Norm, Stage
from tf_mskd.models.heads import HEADS, attend
from tf_mskd.utils import names
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.private import node_of
from tf_mskd.utils.types import Tensor


def head_map(
    x: Tensor,
    k: int,
    backbone: Backbone,
    kind: str,
    attention: bool,
    mid_width: int,
    norm: Norm,
) -> Tensor:
    """The map that exit k < K pools, from the map of stage k.

    Args:
        x: [B, H, W, C], `feature_k`.
        k: int, number of the exit.
        backbone: `Backbone` the map comes from.
        kind: str, a key of `HEADS`.
        attention: bool, whether a mask goes over the map first.
        mid_width: int, inner width of the "bottleneck" head.
        norm: callable, layer name -> batch norm layer.

    Returns:
        [B, H', W', D].
    """
    # A copied stage of a pre-activation network brings its own batch norm and ReLU.
    if kind != "stage":
        x = _activate(x, backbone, f"exit_{k}_bn", f"exit_{k}_relu")
    if attention:
        x = attend(x, k, norm)
    x = HEADS[kind](x, k, backbone.stages, norm, mid_width)
    if kind == "stage":
        last = f"exit_{k}_preact_{len(backbone.stages)}"
        x = _activate(x, backbone, last, f"exit_{k}_relu")
    return x


def _activate(x, backbone, bn, relu):
    return blocks.relu(backbone.close(x, bn), relu) if backbone.close else x


def pool(x: Tensor, k: int) -> Tensor:
    """`embedding_k` [B, C]: the mean of a map [B, H, W, C] over its positions."""
    return keras.layers.GlobalAveragePooling2D(name=f"embedding_{k}")(x)


def classify(x: Tensor, k: int, num_classes: int, dropout: float = 0.0) -> Tensor:
    """`exit_k`: float32 logits [B, num_classes] from a vector [B, D]."""
    if dropout:
        x = keras.layers.Dropout(dropout, name=f"exit_{k}_dropout")(x)
    return keras.layers.Dense(num_classes, dtype="float32", name=f"exit_{k}")(x)


def check_head(kind: str) -> None:
    """Raises `UserError` unless `kind` is a kind of exit head."""
    if kind not in HEADS:
        raise unknown_name("exit head", kind, HEADS)


def add_exits(
    model: keras.Model,
    taps: str | Sequence[str],
    num_classes: int,
    *,
    exit_head: str = "dense",
    attention: bool = False,
    features: str | Sequence[str] = (),
) -> keras.Model:
    """Gives exits to any functional model with one output.

    The model's own end becomes the deepest exit: its output where that is
    [B, num_classes], pooling and a dense layer behind a map, a dense layer behind any
    other vector. Tap k becomes the identity layer `feature_k`, and the rest of the
    network reads that layer. Layers and weights are shared with `model`.

    Args:
        model: functional model of a fixed image size, ending in logits, a map or a
            vector; no softmax.
        taps: layer names, shallow to deep, each with a map [B, H, W, C] as output.
        num_classes: int.
        exit_head: "dense", "separable", "bottleneck" or "linear".
        attention: bool, a mask over each tapped map, see `heads.attend`.
        features: names of further outputs: `feature_k`, and `embedding_k` where exit k
            has a vector before its logits.

    Returns:
        functional model with the dict output exit_1 .. exit_K; K is the number of taps
        and one more.

    Raises:
        UserError: if the model, the taps or the names do not fit.

    Example:
        >>> net = keras.applications.MobileNetV2(
        ...     (32, 32, 3), alpha=0.35, include_top=False, weights=None)
        >>> model = add_exits(net, ["block_5_add", "block_12_add"], 10)
        >>> list(model.output)
        ['exit_1', 'exit_2', 'exit_3']
    """
    check_head(exit_head)
    if exit_head == "stage":
        raise UserError(
            "add_exits cannot copy the stages of a given model, got exit_head='stage'. "
            "Use 'dense', 'separable', 'bottleneck' or 'linear'."
        )
    _check_model(model)
    maps = _tap_tensors(model, taps)
    end = model.outputs[0]
    maps.append(_last_map(end, maps))
    last = len(maps)
    stages = tuple(Stage(t.shape[-1], tuple(t.shape[1:3])) for t in maps)
    backbone = Backbone(lambda x: x, stages)

    renamed = {id(t): f"feature_{k}" for k, t in enumerate(maps, start=1)}
    vector = _vector_before(end, num_classes)
    if vector is not None:
        renamed[id(vector)] = f"embedding_{last}"
    known = {id(tensor): tensor for tensor in model.inputs}
    (x,) = graph.replay([end], known, renamed)

    made = {renamed[i]: known[i] for i in renamed}
    for k, tensor in enumerate(maps[:-1], start=1):
        y = head_map(
            known[id(tensor)], k, backbone, exit_head, attention, 128, blocks.batch_norm
        )
        made[f"embedding_{k}"] = pool(y, k)
        made[f"exit_{k}"] = classify(made[f"embedding_{k}"], k, num_classes)
    made.update(_end_exit(x, last, num_classes))
    return _with_outputs(model, made, last, features)


def _end_exit(x, k, num_classes):
    """The deepest exit, from whatever the model ends in."""
    if tuple(x.shape[1:]) == (num_classes,):
        logits = keras.layers.Identity(dtype="float32", name=f"exit_{k}")(x)
        return {f"exit_{k}": logits}
    made = {}
    if len(x.shape) == 4:
        x = made[f"embedding_{k}"] = pool(x, k)
    return {**made, f"exit_{k}": classify(x, k, num_classes)}


def _with_outputs(model, made, last, features):
    features = [features] if isinstance(features, str) else list(features)
    known = [name for name in made if not names.is_kind(name, "exit")]
    for name in features:
        if name not in known:
            raise unknown_name("feature", name, known)
    wanted = [f"exit_{k}" for k in range(1, last + 1)] + features
    return keras.Model(model.input, {n: made[n] for n in wanted}, name=model.name)


def _check_model(model):
    if not hasattr(model, "outputs") or len(model.outputs) != 1:
        raise UserError(
            "add_exits takes a functional model with one output, got "
            f"{getattr(model, 'output_names', type(model).__name__)}."
        )
    taken = [n.name for n in model.layers if names.OUTPUT.match(n.name)]
    if taken:
        raise UserError(
            f"add_exits needs the names exit_k and feature_k free, but {model.name} "
            f"has a layer {taken[0]!r}. Give it a model without exits."
        )
    operation = node_of(model.outputs[0]).operation
    while hasattr(operation, "outputs") and operation.outputs:  # a nested model
        operation = node_of(operation.outputs[0]).operation
    activation = getattr(operation, "activation", None)
    is_softmax = isinstance(operation, keras.layers.Softmax)
    if is_softmax or activation is keras.activations.softmax:
        raise UserError(
            f"{model.name} ends in a softmax (layer {operation.name!r}); exits make "
            "logits. Build it with classifier_activation=None."
        )


def _tap_tensors(model, taps):
    """The maps of the named layers, in the order given."""
    taps = [taps] if isinstance(taps, str) else list(taps)
    if not taps:
        raise UserError("add_exits needs one tap or more, got none.")
    calls = graph.calls_to(model.outputs)
    by_name = {node.operation.name: node for node in calls if not node.is_input}
    maps = []
    for name in taps:
        if name not in by_name:
            raise unknown_name("tap", name, by_name)
        tensor = by_name[name].outputs[0]
        if len(tensor.shape) != 4 or None in tensor.shape[1:]:
            raise UserError(
                f"A tap must be a map [B, H, W, C] of known size, but {name!r} makes "
                f"{tuple(tensor.shape)}. Choose a convolutional layer, and build the "
                "model with a fixed input_shape."
            )
        later = {id(node) for node in graph.calls_to(maps)}
        if id(by_name[name]) in later:
            raise UserError(
                f"Taps go from shallow to deep, each once, but {name!r} does not come "
                f"after the taps before it in {taps}. Reorder them."
            )
        maps.append(tensor)
    return maps


def _last_map(end, maps):
    """The map the model ends in, or the last one larger than 1x1 before its vector."""
    tensors = [t for node in graph.calls_to([end]) for t in node.outputs]
    grids = [t for t in tensors if len(t.shape) == 4]
    if len(end.shape) != 4:  # some networks keep 1x1 maps after their pooling
        grids = [t for t in grids if tuple(t.shape[1:3]) != (1, 1)] or grids
    last = grids[-1]
    if any(last is tensor for tensor in maps):
        raise UserError(
            f"Tap {node_of(last).operation.name!r} is the last map of the model, "
            "whose own end already is the deepest exit. Leave this tap out."
        )
    return last


def _vector_before(end, num_classes):
    """The vector a logits layer at the model's end reads, or a vector end itself."""
    if len(end.shape) != 2:
        return None
    if end.shape[-1] != num_classes:
        return end
    inputs = node_of(end).input_tensors
    return inputs[0] if len(inputs) == 1 and len(inputs[0].shape) == 2 else None
