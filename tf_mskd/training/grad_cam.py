"""Grad-CAM: where in an image the evidence for a class lies, by one exit."""

import typing

import keras
import numpy as np
from keras import ops

from tf_mskd.methods.common.gradients import input_gradient
from tf_mskd.models import graph
from tf_mskd.models.nested import is_graph, nested_names, open_nested
from tf_mskd.models.plain import as_functional
from tf_mskd.models.probabilities import kind_of_output
from tf_mskd.models.taps import last_map
from tf_mskd.utils.errors import UserError, unknown_name

BATCH = 32  # images at a time


def grad_cam(
    model: keras.Model,
    images: typing.Any,
    exit: str | None = None,
    layer: str | None = None,
    classes: typing.Any = None,
) -> np.ndarray:
    """Where in each image the evidence for a class lies, as one exit sees it.

    alpha_c = mean over the positions of d z / d A_c
    map = relu(sum_c alpha_c A_c), resized (bilinear) to the image, over its maximum

    with z the exit's logit of the class and A_c channel c of a feature map A. What
    reaches the exit around A is held. A map that is 0 everywhere stays 0: no channel
    speaks for the class.

    Args:
        model: functional or built sequential model of one image input, with outputs
            exit_k or others; each logits [B, classes].
        images: array [N, H, W, C] as the model takes them.
        exit: name of an output; None: the deepest exit, or the last output.
        layer: name of the layer that makes A, also within nested models; of several
            calls of a layer the last. None: the last map on the way to the exit, which
            the exit pools; where that is 1x1, the last larger one.
        classes: int, or int array [N], classes whose evidence is shown; None: for each
            image the class that the exit tells.

    Returns:
        float32 [N, H, W] in [0, 1].

    Raises:
        UserError: if model, images, exit, layer or classes do not fit.

    Source: Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra, "Grad-CAM: Visual
        Explanations from Deep Networks via Gradient-based Localization", ICCV 2017,
        arXiv 1610.02391. Behind global pooling and a dense layer it is the class
        activation map of Zhou et al., CVPR 2016.
    Departs from the source: nothing known.

    Example:
        >>> from tf_mskd.models import create_model
        >>> model = create_model("resnet10", 10, exits="all", width=0.1)
        >>> grad_cam(model, np.zeros((2, 32, 32, 3)), exit="exit_2").shape
        (2, 32, 32)
    """
    network = _one_exit(model, exit)
    nested = [x for x in network.layers if is_graph(x)]
    if layer is None:  # the last map lies in those that make a vector
        inside = _names_in(x for x in nested if len(x.outputs[0].shape) == 2)
        network = open_nested(network, inside)
        target = _last_map(network)
    else:
        network = open_nested(network, [layer])
        target = _named_map(network, layer, nested)
    images = _checked(network, images)
    classes = _class_numbers(classes, len(images), network.outputs[0].shape[-1])
    trunk, behind = keras.Model(network.inputs[0], target), _Behind(network, target)
    maps = np.zeros(images.shape[:3], "float32")
    for start in range(0, len(images), BATCH):
        rows = slice(start, start + BATCH)
        wanted = None if classes is None else classes[rows]
        maps[rows] = _maps(trunk, behind, images[rows], wanted)
    return maps


class _Behind(keras.layers.Layer):
    """The logits of a network as a function of one of its maps, and of the images."""

    def __init__(self, network, target):
        super().__init__(autocast=False)
        self._held = lambda: (network, target)  # not an attribute: it tracks nothing

    def call(self, maps, images, training=None):
        network, target = self._held()
        known = {id(network.inputs[0]): images, id(target): maps}
        return graph.replay(network.outputs, known)[0]


def _maps(trunk, behind, images, classes):
    """float32 [n, H, W] of one batch."""
    images = ops.cast(images, trunk.inputs[0].dtype)

    def score(maps):
        logits = behind(maps, images, training=False)
        told = ops.argmax(logits, -1) if classes is None else classes
        return ops.take_along_axis(logits, told[:, None], axis=-1)[:, 0], ()

    features = ops.cast(trunk(images, training=False), "float32")
    gradient, _, _ = input_gradient(score, features)
    alpha = ops.mean(gradient, axis=(1, 2), keepdims=True)
    maps = ops.relu(ops.sum(alpha * features, axis=-1, keepdims=True))
    maps = ops.image.resize(maps, images.shape[1:3], data_format="channels_last")
    highest = ops.max(maps, axis=(1, 2), keepdims=True)
    maps = maps / ops.where(highest > 0, highest, 1.0)
    return ops.convert_to_numpy(maps)[..., 0]


def _one_exit(model, name):
    """The model with the one output that is asked about."""
    network = as_functional(model)
    if network is None or [len(t.shape) for t in network.inputs] != [4]:
        raise UserError(
            "grad_cam takes a functional Keras model of one image input [B, H, W, C], "
            f"got {_text_of(model)}."
        )
    outputs = graph.output_tensors(network)
    known = graph.exit_names(outputs) or list(outputs)
    name = known[-1] if name is None else name
    if name not in known:
        raise unknown_name("exit", name, known)
    tensor = outputs[name]
    shape = tuple(tensor.shape)
    kind = kind_of_output(network, tensor) if len(shape) == 2 else "maps"
    if kind != "logits":
        raise UserError(
            f"Output {name!r} of {network.name!r} must be logits [B, classes], got "
            f"{kind} {shape}: name another output, or build the model without its last "
            "activation."
        )
    return keras.Model(network.inputs[0], tensor, name=network.name)


def _text_of(model):
    shapes = [str(tuple(t.shape)) for t in getattr(model, "inputs", None) or []]
    reads = f" of {', '.join(shapes)}" if shapes else " without a graph"
    return f"a {type(model).__name__}{reads}"


def _names_in(models):
    return [name for model in models for name in nested_names(model)]


def _last_map(network):
    found = last_map(network.outputs[0], [])
    if found is None or len(found.shape) != 4:
        raise UserError(
            f"No map [B, H, W, C] leads to the logits of {network.name!r}, so no place "
            "in the image can be shown: grad_cam is for networks of convolutions."
        )
    return found


def _named_map(network, layer, nested):
    calls = [n for n in graph.calls_to(network.outputs) if not n.is_input]
    made = {node.operation.name: node.outputs[0] for node in calls}
    maps = {name: tensor for name, tensor in made.items() if len(tensor.shape) == 4}
    if layer not in maps:
        known = {*maps, *_names_in(nested)}
        raise unknown_name("layer with a map on the way to the exit", layer, known)
    return maps[layer]


def _checked(network, images):
    images, shape = np.asarray(images), network.inputs[0].shape[1:]
    pairs = zip(shape, images.shape[1:], strict=False)
    if images.ndim != 4 or any(a not in (None, b) for a, b in pairs):
        raise UserError(
            f"Images of {network.name!r} must be [N, {', '.join(map(str, shape))}], "
            f"got {list(images.shape)}: resize them; one image needs a first axis, "
            "image[None]."
        )
    return images


def _class_numbers(classes, count, width):
    """int32 [count], or None."""
    if classes is None:
        return None
    numbers = np.asarray(classes)
    if numbers.dtype.kind not in "iu" or numbers.shape not in ((), (count,)):
        raise UserError(
            f"classes must be one whole number or one for each of the {count} images, "
            f"got {numbers.dtype} {list(numbers.shape)}."
        )
    outside = numbers[(numbers < 0) | (numbers >= width)]
    if outside.size:
        raise UserError(f"classes must be in [0, {width}), got {int(outside.flat[0])}.")
    return np.broadcast_to(numbers, count).astype("int32")
