"""Exits for any model with a graph: maps, sequences and vectors as taps."""

from collections.abc import Sequence

import keras

from tf_mskd.models import blocks, graph, pyramid
from tf_mskd.models.backbone import Backbone, Stage
from tf_mskd.models.costs import head_for, tell_costs
from tf_mskd.models.exits import check_head, head_map
from tf_mskd.models.nested import box_names, open_nested
from tf_mskd.models.probabilities import kind_of_output
from tf_mskd.models.taps import last_map, tap_tensors
from tf_mskd.tasks import Task, create_task
from tf_mskd.utils import names
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.private import node_of


def add_exits(
    model: keras.Model,
    taps: str | Sequence[str],
    num_classes: int,
    *,
    exit_head: str = "auto",
    attention: bool = False,
    pyramid_pooling: bool = False,
    features: str | Sequence[str] = (),
    task: str | Task = "classification",
    verbose: bool = True,
) -> keras.Model:
    """Gives exits to any functional or built sequential model with one output.

    The model's own end becomes the deepest exit: its output where that is
    [B, num_classes], pooling and a dense layer behind a map or a sequence, a dense
    layer behind any other vector. Tap k becomes the identity layer `feature_k`, and the
    rest of the network reads that layer. Layers and weights are shared with `model`;
    of a nested model with a tap the layers become the network's own.

    Args:
        model: model that ends in logits, a map, a sequence or a vector; no softmax. One
            input or several; a fixed image size unless the heads are linear.
        taps: layer names, shallow to deep, also within nested models, each with a map
            [B, H, W, C], a sequence [B, T, C] or a vector [B, C] as output. Without any
            the model has one exit.
        num_classes: int.
        exit_head: "dense", "separable", "bottleneck" or "linear"; or "auto", for each
            exit the first of these whose multiply-accumulates are at most a quarter of
            those of the network behind its tap ("linear" where they cannot be counted).
            Exits of sequences and vectors are linear.
        attention: bool, a mask over each tapped map, see `heads.attend`.
        pyramid_pooling: bool, pyramid pooling of 512 channels between the model's map
            and the deepest exit, for tasks of maps; see `models/pyramid.py`.
        features: names of further outputs: `feature_k`, and `embedding_k` where exit k
            has a vector before its logits.
        task: what the exits answer, a `Task` or the name of one.
        verbose: bool, whether a table of `exit_costs` is printed. A head that costs
            more than the rest of the network is warned of either way.

    Returns:
        functional model with the dict output exit_1 .. exit_K; K is the number of taps
        and one more.

    Raises:
        UserError: if the model, the taps or the names do not fit.

    Example:
        >>> net = keras.applications.MobileNetV2(
        ...     (32, 32, 3), alpha=0.35, include_top=False, weights=None)
        >>> taps = ["block_5_add", "block_12_add"]
        >>> model = add_exits(net, taps, 10, verbose=False)
        >>> list(model.output)
        ['exit_1', 'exit_2', 'exit_3']
    """
    _check_kind(exit_head)
    task = create_task(task)
    taps = [taps] if isinstance(taps, str) else list(taps)
    if pyramid_pooling:
        pyramid.check_task(task)
    width = task.num_outputs(num_classes)
    student, heads = attach(
        model, taps, width, task, exit_head, attention, features, pyramid_pooling
    )
    if taps:
        tell_costs(student, heads, verbose)
    return student


def attach(
    model: keras.Model,
    taps: Sequence[str],
    width: int,
    task: Task,
    exit_head: str = "auto",
    attention: bool = False,
    features: str | Sequence[str] = (),
    pyramid_pooling: bool = False,
) -> tuple[keras.Model, dict[str, str]]:
    """Gives exits of a width to a model, see `add_exits`.

    Args:
        model, taps, exit_head, attention, features, pyramid_pooling: see `add_exits`.
        width: int, of the exits.
        task: `Task`.

    Returns:
        (model with a dict of exits, exit name -> kind of its head).

    Raises:
        UserError: see `add_exits`.
    """
    model = open_nested(_functional(model), taps)
    _check_end(model, width, task)
    any_size = exit_head in ("auto", "linear") and not (attention or task.dense)
    tapped = tap_tensors(model, taps, any_size)
    end = model.outputs[0]
    final = last_map(end, tapped)
    maps = tapped if final is None else [*tapped, final]
    last = len(tapped) + 1

    renamed = {id(t): f"feature_{k}" for k, t in enumerate(maps, start=1)}
    vector = _vector_before(end, width)
    if vector is not None and id(vector) not in renamed:
        renamed[id(vector)] = f"embedding_{last}"
    known = {id(tensor): tensor for tensor in model.inputs}
    (x,) = graph.replay([end], known, renamed)

    made, heads = {renamed[i]: known[i] for i in renamed}, {}
    for k, tensor in enumerate(tapped, start=1):
        y, kind = known[id(tensor)], "linear"
        if len(y.shape) == 4:
            backbone, kind = _backbone(maps, k), exit_head
            backbone = backbone.of_one_size(k) if task.dense else backbone
            if kind == "auto":
                kind = head_for(k, backbone, attention, tensor, end)
            y = head_map(y, k, backbone, kind, attention, 128, blocks.batch_norm)
        heads[f"exit_{k}"] = kind
        made.update(_exit(y, k, width, task, model))
    made.update(_end_exit(x, last, width, task, model, pyramid_pooling))
    return _with_outputs(model, made, last, features), heads


def _check_kind(kind):
    if kind != "auto":
        check_head(kind)
    if kind == "stage":
        raise UserError(
            "add_exits cannot copy the stages of a given model, got exit_head='stage'. "
            "Use 'auto', 'dense', 'separable', 'bottleneck' or 'linear'."
        )


def _backbone(maps, k):
    """The maps from stage k on, as the heads read them."""
    later = [t for t in maps[k:] if len(t.shape) == 4]
    stages = [maps[k - 1]] * k + later
    sizes = [Stage(t.shape[-1], tuple(t.shape[1:3])) for t in stages]
    return Backbone(lambda x: x, tuple(sizes))


def _exit(x, k, width, task, model):
    """Exit k on a map, a sequence or a vector, and its vector if it has one."""
    x = task.pool(x, k)
    image = tuple(model.inputs[0].shape[1:3])
    made = {f"exit_{k}": task.classify(x, k, width, image_size=image)}
    return made if task.dense else {f"embedding_{k}": x, **made}


def _end_exit(x, k, width, task, model, pyramid_pooling):
    """The deepest exit, from whatever the model ends in."""
    if _is_answer(x, width, task):
        if pyramid_pooling:
            raise UserError(
                f"pyramid_pooling stands before the last exit, {model.name} ends in "
                f"its {width} channels: give it without its last layer."
            )
        answer = keras.layers.Identity(dtype="float32", name=f"exit_{k}")(x)
        return {f"exit_{k}": answer}
    if len(x.shape) == 2:  # a vector, which has a name already
        return {f"exit_{k}": task.classify(x, k, width)}
    if pyramid_pooling:
        x = pyramid.pyramid_pooling(x, k, 1.0, blocks.batch_norm)
    return _exit(x, k, width, task, model)


def _is_answer(end, width, task):
    """Whether a model's end is what an exit gives."""
    return len(end.shape) == (4 if task.dense else 2) and end.shape[-1] == width


def _with_outputs(model, made, last, features):
    features = [features] if isinstance(features, str) else list(features)
    known = [name for name in made if not names.is_kind(name, "exit")]
    for name in features:
        if name not in known:
            raise unknown_name("feature", name, known)
    wanted = [f"exit_{k}" for k in range(1, last + 1)] + features
    return keras.Model(model.input, {n: made[n] for n in wanted}, name=model.name)


def _functional(model):
    """The model as a functional one whose names leave those of the exits free."""
    if not getattr(model, "outputs", None) or len(model.outputs) != 1:
        found = getattr(model, "output_names", None) or type(model).__name__
        raise UserError(
            f"add_exits takes a functional model with one output, got {found}. A "
            "sequential model must know its input: begin it with keras.Input(shape)."
        )
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    exits = graph.exit_names(model)
    if exits:
        raise UserError(
            f"add_exits takes a model without exits, but {model.name} makes "
            f"{exits[0]!r}. Give it the network before its exits."
        )
    return box_names(model)


def _check_end(model, width, task):
    end = model.outputs[0]
    if task.dense and len(end.shape) != 4:
        raise UserError(
            f"Exits of the task {task.name!r} need a model that ends in a map "
            f"[B, h, w, C], {model.name} makes {tuple(end.shape)}: build it without "
            "its top, include_top=False."
        )
    if len(end.shape) not in (2, 3, 4) or end.shape[-1] is None:
        raise UserError(
            f"add_exits takes a model that ends in logits, a map, a sequence or a "
            f"vector, but {model.name} makes {tuple(end.shape)}."
        )
    if _is_answer(end, width, task):
        kind = kind_of_output(model, end)
        if kind != "logits":
            raise UserError(
                f"{model.name} ends in probabilities ({kind}); exits make logits. "
                "Build it with classifier_activation=None."
            )


def _vector_before(end, num_classes):
    """The vector a logits layer at the model's end reads, or a vector end itself."""
    if len(end.shape) != 2:
        return None
    if end.shape[-1] != num_classes:
        return end
    tensor = end
    while True:  # over activations and the like, to the layer with weights
        node = node_of(tensor)
        if node.is_input or len(node.input_tensors) != 1:
            return None
        (source,) = node.input_tensors
        if len(source.shape) != 2 or node_of(source).is_input:
            return None
        if getattr(node.operation, "weights", None):
            return source
        tensor = source
