"""MobileNetV1 and MobileNetV2: a stem and four stages, each ended by its last map.

Batch norm has the constants of `blocks`, as torchvision's networks have them.
"""

import keras

from tf_mskd.models import blocks
from tf_mskd.models.backbone import Backbone, Norm, Stage, halved
from tf_mskd.utils.types import Tensor

V1 = (  # for each stage its blocks: channels, stride
    ((64, 1), (128, 2), (128, 1)),
    ((256, 2), (256, 1)),
    ((512, 2), *[(512, 1)] * 5),
    ((1024, 2), (1024, 1)),
)
V2 = (  # for each stage its rows of table 2: expansion, channels, blocks, first stride
    ((1, 16, 1, 1), (6, 24, 2, 2)),
    ((6, 32, 3, 2),),
    ((6, 64, 4, 2), (6, 96, 3, 1)),
    ((6, 160, 3, 2), (6, 320, 1, 1)),
)
V2_LAST = 1280  # channels of the convolution behind the last block
V2_DEPTHS = tuple(sum(row[2] for row in rows) for rows in V2)
V2_BLOCKS = sum(V2_DEPTHS)
NAMES = ("mobilenet_v1", "mobilenet_v2")


def divisible(channels: float) -> int:
    """The channel count under a width multiplier: the nearest multiple of 8.

    At least 8, and the next multiple where the nearest is under 0.9 of the count.

    Source: `_make_divisible` of torchvision and of the authors' TensorFlow code.

    Example:
        >>> divisible(32 * 0.35), divisible(24 * 0.5), divisible(3)
        (16, 16, 8)
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def v2_block_number(stage: int, block: int) -> int:
    """Number of a block in the whole MobileNetV2, 1 to 17.

    Example:
        >>> v2_block_number(1, 1), v2_block_number(2, 1)
        (1, 4)
    """
    return sum(V2_DEPTHS[: stage - 1]) + block


def build_mobilenet(
    name: str, input_shape: tuple, width: float, norm: Norm, stem_stride: int
) -> Backbone:
    """The stem and stages of a MobileNet.

    A stage ends at the last map of its size: with the ImageNet stem at 1/4, 1/8, 1/16
    and 1/32 of the image, in the second network with 24, 32, 96 and 1280 channels. The
    blocks of 1/2 belong to the first stage.

    In MobileNetV1 `preact_k` is the batch norm that ends stage k and `feature_k` its
    ReLU6. In MobileNetV2 so in stage 4, whose end is the 1x1 convolution to 1280
    channels; stages 1 to 3 end in a linear bottleneck, which has no ReLU6: `preact_k`
    and `feature_k` are both the block's sum, as the next block reads it.

    Source: Howard et al., "MobileNets: Efficient Convolutional Neural Networks for
        Mobile Vision Applications", arXiv 1704.04861, 2017, table 1, with ReLU6 as in
        the authors' code, and channels rounded as in MobileNetV2; Sandler, Howard,
        Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
        CVPR 2018, arXiv 1801.04381, table 2, as torchvision builds it. With the stem
        for small images the first convolution has stride 1.

    Args:
        name: str, of `NAMES`.
        input_shape: (int, int, int), height, width, channels of the images.
        width: float, multiplier of all channel counts, see `divisible`; the 1280
            channels of MobileNetV2 grow with it and do not shrink.
        norm: callable, layer name -> batch norm layer.
        stem_stride: int, 1 for small images, 2 for those of ImageNet.

    Returns:
        `Backbone` with four stages.

    Example:
        >>> shape = (224, 224, 3)
        >>> made = build_mobilenet("mobilenet_v2", shape, 1.0, None, stem_stride=2)
        >>> [(s.width, s.size[0]) for s in made.stages]
        [(24, 56), (32, 28), (96, 14), (1280, 7)]
    """
    is_v1 = name == "mobilenet_v1"
    size = input_shape[:2] if stem_stride == 1 else halved(input_shape[:2])
    stages = []
    for number, rows in enumerate(_v1_rows(width) if is_v1 else _v2_rows(width), 1):
        for row in rows:
            size = halved(size) if row[-1] == 2 else size
        if is_v1:
            stages.append(Stage(rows[-1][0], size, _v1_stage(number, rows, norm)))
            continue
        wide = divisible(V2_LAST * max(1.0, width)) if number == len(V2) else None
        build = _v2_stage(number, rows, wide, norm)
        stages.append(Stage(wide or rows[-1][1], size, build))

    def stem(x):
        channels = divisible(32 * width)
        x = blocks.conv_bn(x, channels, 3, stem_stride, "stem_", "", norm)
        return _relu6(x, "stem_relu")

    return Backbone(stem, tuple(stages))


def _v1_rows(width):
    """For each stage its blocks as (channels, stride)."""
    return [[(divisible(c * width), stride) for c, stride in rows] for rows in V1]


def _v2_rows(width):
    """For each stage its blocks as (expansion, channels, stride)."""
    return [
        [
            (expansion, divisible(channels * width), stride if index == 0 else 1)
            for expansion, channels, count, stride in rows
            for index in range(count)
        ]
        for rows in V2
    ]


def _relu6(x, name):
    return keras.layers.Activation("relu6", name=name)(x)


def _v1_stage(number, rows, norm):
    """The builder of a stage; its last block carries the output names."""

    def build(x, prefix):
        for index, (channels, stride) in enumerate(rows, start=1):
            start = f"{prefix}stage_{number}_block_{index}_"
            ends = index == len(rows)
            x = blocks.depthwise(x, stride, f"{start}dw_1")
            x = _relu6(norm(f"{start}bn_1")(x), f"{start}relu_1")
            x = blocks.conv(x, channels, 1, 1, f"{start}conv_2")
            preact = norm(f"{prefix}preact_{number}" if ends else f"{start}bn_2")(x)
            relu = f"{prefix}feature_{number}" if ends else f"{start}relu_2"
            x = _relu6(preact, relu)
        return {f"preact_{number}": preact, f"feature_{number}": x}

    return build


def _v2_stage(number, rows, wide, norm):
    """The builder of a stage; the last one goes on to `wide` channels."""

    def build(x, prefix):
        preact, feature = f"{prefix}preact_{number}", f"{prefix}feature_{number}"
        for index, (expansion, channels, stride) in enumerate(rows, start=1):
            start = f"{prefix}stage_{number}_block_{index}_"
            add = preact if index == len(rows) and not wide else f"{start}add"
            x = inverted_residual(x, expansion, channels, stride, start, norm, add)
        if not wide:
            end = keras.layers.Identity(name=feature)(x)
            return {f"preact_{number}": x, f"feature_{number}": end}
        x = blocks.conv(x, wide, 1, 1, f"{prefix}stage_{number}_conv")
        x = norm(preact)(x)
        return {f"preact_{number}": x, f"feature_{number}": _relu6(x, feature)}

    return build


def inverted_residual(
    x: Tensor,
    expansion: int,
    channels: int,
    stride: int,
    prefix: str,
    norm: Norm,
    add: str,
) -> Tensor:
    """1x1 to more channels, depthwise 3x3, 1x1 to few channels without ReLU6.

    Where the shape stays the block adds its input.

    Source: Sandler et al., CVPR 2018, arXiv 1801.04381, figure 4 d.

    Args:
        x: [B, H, W, C].
        expansion: int, factor of the inner channels; 1 leaves out the first 1x1.
        channels: int, output channels.
        stride: int, of the depthwise convolution.
        prefix: str, start of every layer name of the block.
        norm: callable, layer name -> batch norm layer.
        add: str, name of the sum.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), channels].
    """
    skip, inner = x, x.shape[-1] * expansion
    if expansion != 1:
        x = blocks.conv_bn(x, inner, 1, 1, prefix, "_1", norm)
        x = _relu6(x, f"{prefix}relu_1")
    x = blocks.depthwise(x, stride, f"{prefix}dw_2")
    x = _relu6(norm(f"{prefix}bn_2")(x), f"{prefix}relu_2")
    x = blocks.conv_bn(x, channels, 1, 1, prefix, "_3", norm)
    if stride == 1 and skip.shape[-1] == channels:
        return keras.layers.Add(name=add)([skip, x])
    return x
