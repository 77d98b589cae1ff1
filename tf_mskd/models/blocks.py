"""Building blocks shared by the networks and the exit heads.

Conventions of the published PyTorch networks, needed for equal numbers: batch norm with
momentum 0.9 and epsilon 1e-5, convolutions drawn from an untruncated He normal over the
fan-out, and as many zeros on all four sides before a convolution of stride 2: one ring
for a 3x3 kernel, three for 7x7 (Keras "same" pads an even map more on the bottom and
the right).
"""

import keras

from tf_mskd.models.backbone import Norm
from tf_mskd.utils.types import Tensor


def scaled(channels: int, width: float) -> int:
    """Channel count under a width multiplier: at least 1, else rounded.

    Example:
        >>> scaled(64, 0.25), scaled(64, 0.001)
        (16, 1)
    """
    return max(1, int(round(channels * width)))


def he_normal() -> keras.Initializer:
    """A fresh He-normal initializer over the fan-out, not truncated.

    A new object each time: a Keras initializer without a seed repeats its draw.
    """
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def batch_norm(name: str, synchronized: bool = False) -> keras.layers.Layer:
    """Batch norm layer with the constants of the published networks.

    Args:
        name: str, layer name.
        synchronized: bool, average the batch statistics over all replicas.
    """
    return keras.layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, synchronized=synchronized, name=name
    )


def relu(x: Tensor, name: str) -> Tensor:
    """ReLU as a layer of its own, so that its output has a name."""
    return keras.layers.Activation("relu", name=name)(x)


def pad(x: Tensor, name: str, rings: int = 1) -> Tensor:
    """Rings of zeros: [B, H, W, C] to [B, H + 2 rings, W + 2 rings, C]."""
    return keras.layers.ZeroPadding2D(rings, name=f"{name}_pad")(x)


def max_pool(x: Tensor, name: str) -> Tensor:
    """3x3 max pooling of stride 2 after a ReLU, symmetric padding; size as `conv`.

    The padding is of zeros: the largest of values of 0 or more is the same with them.
    """
    return keras.layers.MaxPooling2D(3, strides=2, name=name)(pad(x, name))


def conv(
    x: Tensor, filters: int, kernel: int, stride: int, name: str, use_bias: bool = False
) -> Tensor:
    """Convolution with symmetric zero padding of `kernel // 2`.

    Args:
        x: [B, H, W, C].
        filters: int, output channels.
        kernel: int, odd.
        stride: int.
        name: str, layer name; the padding or subsampling layer before it, if any, is
            called `<name>_pad` or `<name>_subsample`.
        use_bias: bool.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), filters].
    """
    padding = "same"
    if stride > 1 and kernel == 1:
        # The same numbers as a strided 1x1 convolution, whose gradient overruns its
        # memory for 4 to 8 channels at 64x64 (TensorFlow 2.21 with oneDNN on CPU).
        subsample = keras.layers.AveragePooling2D(
            1, strides=stride, name=f"{name}_subsample"
        )
        x, stride = subsample(x), 1
    if stride > 1:
        padding = "valid"
        x = pad(x, name, kernel // 2)
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer=he_normal(),
        name=name,
    )(x)


def depthwise(x: Tensor, stride: int, name: str) -> Tensor:
    """3x3 depthwise convolution without bias, symmetric padding; size as `conv`."""
    padding = "same"
    if stride > 1:
        padding = "valid"
        x = pad(x, name)
    return keras.layers.DepthwiseConv2D(
        3,
        strides=stride,
        padding=padding,
        use_bias=False,
        depthwise_initializer=he_normal(),
        name=name,
    )(x)


def conv_bn(
    x: Tensor,
    filters: int,
    kernel: int,
    stride: int,
    prefix: str,
    tag: str,
    norm: Norm,
    use_bias: bool = False,
) -> Tensor:
    """Convolution `<prefix>conv<tag>` and batch norm `<prefix>bn<tag>`; no ReLU."""
    x = conv(x, filters, kernel, stride, f"{prefix}conv{tag}", use_bias)
    return norm(f"{prefix}bn{tag}")(x)


def shortcut(x: Tensor, filters: int, stride: int, prefix: str, norm: Norm) -> Tensor:
    """The identity, or a 1x1 convolution with batch norm where the shape changes."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    return conv_bn(x, filters, 1, stride, f"{prefix}shortcut_", "", norm)


def residual_end(
    x: Tensor, skip: Tensor, prefix: str, preact: str | None, feature: str | None
) -> tuple[Tensor, Tensor]:
    """Adds the skip path and ends a post-activation block.

    `preact` and `feature` name the sum and its ReLU where the block ends a stage; None
    gives them ordinary block names.
    """
    x = keras.layers.Add(name=preact or f"{prefix}add")([x, skip])
    return x, relu(x, feature or f"{prefix}relu")


def basic_block(
    x: Tensor,
    filters: int,
    stride: int,
    prefix: str,
    norm: Norm,
    preact: str | None = None,
    feature: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Two 3x3 convolutions with a skip path.

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR
    2016, arXiv 1512.03385, figure 5 left.

    Args:
        x: [B, H, W, C].
        filters: int, output channels.
        stride: int, stride of the first convolution.
        prefix: str, start of every layer name of the block.
        norm: callable, layer name -> batch norm layer.
        preact: str or None, name of the map before the last ReLU.
        feature: str or None, name of the last ReLU.

    Returns:
        Two tensors [B, H / stride, W / stride, filters]: before the last ReLU and
        after it.
    """
    skip = shortcut(x, filters, stride, prefix, norm)
    x = conv_bn(x, filters, 3, stride, prefix, "_1", norm)
    x = relu(x, f"{prefix}relu_1")
    x = conv_bn(x, filters, 3, 1, prefix, "_2", norm)
    return residual_end(x, skip, prefix, preact, feature)


def bottleneck_block(
    x: Tensor,
    filters: int,
    stride: int,
    prefix: str,
    norm: Norm,
    preact: str | None = None,
    feature: str | None = None,
) -> tuple[Tensor, Tensor]:
    """1x1, 3x3 (with the stride) and 1x1 convolution with a skip path.

    The inner width is `filters`, the output has four times as many channels. Arguments,
    return and source as `basic_block` (figure 5 right); the stride sits on the 3x3
    convolution, as in the PyTorch networks.
    """
    skip = shortcut(x, 4 * filters, stride, prefix, norm)
    x = conv_bn(x, filters, 1, 1, prefix, "_1", norm)
    x = relu(x, f"{prefix}relu_1")
    x = conv_bn(x, filters, 3, stride, prefix, "_2", norm)
    x = relu(x, f"{prefix}relu_2")
    x = conv_bn(x, 4 * filters, 1, 1, prefix, "_3", norm)
    return residual_end(x, skip, prefix, preact, feature)


def preact_block(
    x: Tensor,
    filters: int,
    stride: int,
    prefix: str,
    norm: Norm,
    dropout: float = 0.0,
    bn: str | None = None,
    feature: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Two 3x3 convolutions, each after batch norm and ReLU, with a skip path.

    Where the shape changes the skip path is a 1x1 convolution of the activated input,
    without batch norm.

    Source: Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016, arXiv 1605.07146.

    Args:
        x: [B, H, W, C], a raw block output.
        filters: int, output channels.
        stride: int, stride of the first convolution.
        prefix: str, start of every layer name of the block.
        norm: callable, layer name -> batch norm layer.
        dropout: float in [0, 1), rate between the two convolutions.
        bn: str or None, name of the first batch norm.
        feature: str or None, name of the closing sum.

    Returns:
        Two tensors: the first batch norm's output [B, H, W, C] and the raw block output
        [B, H / stride, W / stride, filters].
    """
    normed = norm(bn or f"{prefix}bn_1")(x)
    active = relu(normed, f"{prefix}relu_1")
    skip = x
    if stride > 1 or x.shape[-1] != filters:
        skip = conv(active, filters, 1, stride, f"{prefix}shortcut_conv")
    x = conv(active, filters, 3, stride, f"{prefix}conv_1")
    x = norm(f"{prefix}bn_2")(x)
    x = relu(x, f"{prefix}relu_2")
    if dropout:
        x = keras.layers.Dropout(dropout, name=f"{prefix}dropout")(x)
    x = conv(x, filters, 3, 1, f"{prefix}conv_2")
    return normed, keras.layers.Add(name=feature or f"{prefix}add")([x, skip])
