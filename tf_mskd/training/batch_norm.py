"""The same network with fewer passes over its feature maps.

Keras composes batch norm of elementary operations, each a pass over the whole map. In
training one fused operation takes their place; in inference the norm disappears into
the convolution in front of it.
"""

import keras
from keras import ops

from tf_mskd.models.graph import calls_to, output_tensors, replay
from tf_mskd.utils.private import fixed_training, node_of, one_operation


class FusedBatchNorm(keras.layers.Layer):
    """Another layer's batch norm in training mode, by TensorFlow's fused operation.

    Args:
        norm: `keras.layers.BatchNormalization` over the last axis, built, without
            synchronisation. Frozen, it runs in inference mode, as in Keras.

    Call with float [B, H, W, C]; returns what `norm(x, training=training)` does, to
    rounding, and updates its moving statistics alike: with the biased variance of the
    batch, sum (x - mean)^2 / n. PyTorch's moving variance is of the unbiased one, by
    n - 1: 0.1 % more at batch 64 of 4x4 maps.
    """

    def __init__(self, norm: keras.layers.BatchNormalization):
        super().__init__(name=norm.name, dtype=norm.dtype_policy, autocast=False)
        self.norm = norm
        self.built = True

    def call(self, x, training=None):
        norm = self.norm
        if not training or not norm.trainable:
            return norm(x, training=False)
        import tensorflow as tf

        x = ops.cast(x, self.compute_dtype)
        scale = norm.gamma if norm.scale else ops.ones_like(norm.moving_mean)
        offset = norm.beta if norm.center else ops.zeros_like(norm.moving_mean)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=tf.convert_to_tensor(scale),
            offset=tf.convert_to_tensor(offset),
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=norm.epsilon,
            is_training=True,
        )
        rows = tf.cast(tf.size(x) // x.shape[-1], variance.dtype)
        variance *= (rows - 1.0) / rows  # the operation gives the unbiased one
        keep = norm.momentum
        for moving, new in ((norm.moving_mean, mean), (norm.moving_variance, variance)):
            moving.assign(moving * keep + new * (1.0 - keep))
        return y

    def compute_output_shape(self, input_shape):
        return input_shape


class FoldedConv(keras.layers.Layer):
    """A convolution and the batch norm behind it as one convolution, in inference mode.

    w' = w * s, b' = beta + (b - mean) * s, s = gamma / sqrt(variance + epsilon)

    The weights stay those of the two layers and are folded at each call, just before
    the convolution runs: what changes them changes this, and no more than a few folded
    kernels are in memory at once.

    Args:
        conv: `keras.layers.Conv2D`, built, without activation.
        norm: `keras.layers.BatchNormalization`, built.

    Call with float [B, H, W, C]; returns what `norm(conv(x), training=False)` does, to
    rounding.
    """

    def __init__(
        self, conv: keras.layers.Conv2D, norm: keras.layers.BatchNormalization
    ):
        super().__init__(name=norm.name, dtype=conv.dtype_policy, autocast=False)
        self.conv, self.norm = conv, norm
        self.built = True

    def call(self, x):
        conv, norm = self.conv, self.norm
        x = ops.cast(x, self.compute_dtype)
        weights = _weights(conv, norm)
        return _folded_conv(x, weights, norm.epsilon, conv.strides, conv.padding)

    def compute_output_shape(self, input_shape):
        return self.conv.compute_output_shape(input_shape)


def _folded_for_good(conv, norm):
    """What `FoldedConv` computes now, as a `Conv2D` with weights of its own."""
    kernel, bias = _fold(_weights(conv, norm), norm.epsilon)
    config = {**conv.get_config(), "name": norm.name, "use_bias": True}
    folded = keras.layers.Conv2D.from_config(config)
    folded.build((None, None, None, kernel.shape[2]))
    folded.set_weights([ops.convert_to_numpy(weight) for weight in (kernel, bias)])
    return folded


def _weights(conv, norm):
    weights = {"kernel": conv.kernel}
    weights |= {"mean": norm.moving_mean, "variance": norm.moving_variance}
    if norm.scale:
        weights["gamma"] = norm.gamma
    if norm.center:
        weights["beta"] = norm.beta
    if conv.use_bias:
        weights["bias"] = conv.bias
    return weights


def _fold(weights, epsilon):
    scale = ops.rsqrt(weights["variance"] + epsilon) * weights.get("gamma", 1.0)
    shift = (weights.get("bias", 0.0) - weights["mean"]) * scale
    return weights["kernel"] * scale, shift + weights.get("beta", 0.0)


def _when_ready(function):
    """The function as one operation of a graph: nothing in it runs before its inputs.

    TensorFlow starts each operation as soon as its inputs exist. Folding a kernel reads
    weights alone, so without this all kernels of a network would be folded when the
    step starts and held until their layers run: a second copy of the network in memory.
    `_noinline` keeps TensorFlow from dissolving the function when it optimizes the
    graph. Outside of a graph the operations run one after the other anyhow.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    call = one_operation(function)

    def run(x, weights, *arguments):
        weights = tf.nest.map_structure(tf.convert_to_tensor, weights)
        chosen = function if tf.executing_eagerly() else call
        return chosen(x, weights, *arguments)

    return run


@_when_ready
def _folded_conv(x, weights, epsilon, strides, padding):
    kernel, shift = (ops.cast(w, x.dtype) for w in _fold(weights, epsilon))
    return ops.conv(x, kernel, strides, padding) + shift


def fuse_batch_norms(model: keras.Model) -> keras.Model:
    """The network for training steps: every batch norm a fused operation.

    Args:
        model: functional model with a dict output.

    Returns:
        functional model with the same outputs, to rounding, and the same variables.
        `model` itself on other backends than TensorFlow, or if nothing can be fused.
    """
    if keras.backend.backend() != "tensorflow":
        return model

    fused = {}  # a layer that is called twice stays one layer
    nodes = calls_to(model.outputs)
    fixed = [n.operation for n in nodes if fixed_training(n) is not None]

    def fuse(node, known):
        norm = node.operation
        if _is_plain_norm(norm) and not norm.synchronized and norm not in fixed:
            (source,) = replay(node.input_tensors, known)
            layer = fused.setdefault(id(norm), FusedBatchNorm(norm))
            known[id(node.outputs[0])] = layer(source)

    return _replace_layers(model, fuse)


def fold_batch_norms(model: keras.Model, for_good: bool = False) -> keras.Model:
    """The network for inference: batch norms folded into convolutions.

    Args:
        model: functional model with a dict output, run in inference mode only.
        for_good: bool; the folded weights are computed once, here, and are variables of
            the new network. Otherwise its variables are those of `model`, and what
            changes them changes both.

    Returns:
        functional model with the same outputs, to rounding. A convolution whose map is
        read by anything but one batch norm stays as it is, shared with `model`.
    """
    readers = {}
    for node in calls_to(model.outputs):
        for tensor in node.input_tensors:
            readers.setdefault(id(tensor), []).append(node)
    readers.update((id(tensor), ()) for tensor in model.outputs)
    convs = {}  # of each norm: a pair may be called twice, both must be the same
    for node in calls_to(model.outputs):
        if _is_plain_norm(node.operation):
            conv = _conv_before(node, readers)
            convs.setdefault(id(node.operation), []).append(conv)
    make, folded = _folded_for_good if for_good else FoldedConv, {}

    def fold(node, known):
        norm = node.operation
        conv, *others = convs.get(id(norm), [None])
        if conv is None or any(other is not conv for other in others):
            return
        (source,) = replay(node_of(node.input_tensors[0]).input_tensors, known)
        if id(norm) not in folded:
            folded[id(norm)] = make(conv, norm)
        known[id(node.outputs[0])] = folded[id(norm)](source)

    return _replace_layers(model, fold)


def _conv_before(node, readers):
    """The convolution whose map a norm alone reads, None where there is no such."""
    before = node_of(node.input_tensors[0])
    alone = len(readers.get(id(node.input_tensors[0]), ())) == 1
    plain = _is_plain_conv(before.operation) and not fixed_training(node)
    return before.operation if plain and alone else None


def _replace_layers(model, replace):
    known = {id(tensor): tensor for tensor in model.inputs}
    for node in calls_to(model.outputs):  # each after those it needs
        replace(node, known)
    if len(known) == len(model.inputs):
        return model
    outputs = output_tensors(model)
    tensors = replay(outputs.values(), known)
    named = dict(zip(outputs, tensors, strict=True))
    return keras.Model(model.input, named, name=model.name)


def _is_plain_norm(layer):
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and not layer.renorm
        and layer.activity_regularizer is None
    )


def _is_plain_conv(layer):
    return (
        type(layer) is keras.layers.Conv2D
        and layer.activation is keras.activations.linear
        and layer.groups == 1
        and tuple(layer.dilation_rate) == (1, 1)
        and layer.data_format == "channels_last"
    )
