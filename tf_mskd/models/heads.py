"""The five kinds of exit head, and the attention mask in front of one.

A head turns the map of stage k into the map that exit k pools. Its layers are called
`exit_<k>_<layer>_<j>`, with j the remaining stage they stand for, in every network.
"""

import keras

from tf_mskd.models import blocks
from tf_mskd.models.backbone import Norm
from tf_mskd.utils.types import Tensor


def remaining(k: int, stages: tuple) -> list[tuple[int, int, int]]:
    """The stages after stage k as (number, width, stride) triples.

    The stride is 2 where the backbone shrinks its map on the way to that stage, else 1.
    """
    triples = []
    for number in range(k + 1, len(stages) + 1):
        before, stage = stages[number - 2], stages[number - 1]
        triples.append((number, stage.width, 2 if stage.size < before.size else 1))
    return triples


def dense_head(x: Tensor, k: int, stages: tuple, norm: Norm, mid_width: int) -> Tensor:
    """One 3x3 convolution + BN + ReLU for each remaining stage, in its width."""
    for number, width, stride in remaining(k, stages):
        x = blocks.conv_bn(x, width, 3, stride, f"exit_{k}_", f"_{number}", norm)
        x = blocks.relu(x, f"exit_{k}_relu_{number}")
    return x


def separable_head(
    x: Tensor, k: int, stages: tuple, norm: Norm, mid_width: int
) -> Tensor:
    """Two depthwise-separable convolutions for each remaining stage.

    Depthwise 3x3 with the stride, 1x1 at the incoming width, BN, ReLU; depthwise 3x3,
    1x1 to the stage's width, BN, ReLU. No biases.

    Source: Zhang, Song, Gao, Chen, Bao, Ma, "Be Your Own Teacher", ICCV 2019, arXiv
    1905.08094 (its journal form has these heads).
    """
    for number, width, stride in remaining(k, stages):
        for part, filters in (("a", x.shape[-1]), ("b", width)):
            tag = f"{number}{part}"
            x = blocks.depthwise(x, stride, f"exit_{k}_dw_{tag}")
            x = blocks.conv_bn(x, filters, 1, 1, f"exit_{k}_", f"_{tag}", norm)
            x = blocks.relu(x, f"exit_{k}_relu_{tag}")
            stride = 1
    return x


def bottleneck_head(
    x: Tensor, k: int, stages: tuple, norm: Norm, mid_width: int
) -> Tensor:
    """1x1, then s x s with stride s, then 1x1, each with BN + ReLU.

    s is the factor between the sizes of stage k's and the last stage's map, so one
    convolution does the whole way; it ends at the last stage's width.
    """
    ratios = zip(stages[k - 1].size, stages[-1].size, strict=True)
    scale = max(1, *(side // last for side, last in ratios))
    plan = ((mid_width, 1), (mid_width, scale), (stages[-1].width, 1))
    for index, (filters, kernel) in enumerate(plan, start=1):
        x = keras.layers.Conv2D(
            filters,
            kernel,
            strides=kernel,
            use_bias=False,
            kernel_initializer=blocks.he_normal(),
            name=f"exit_{k}_conv_{index}",
        )(x)
        x = norm(f"exit_{k}_bn_{index}")(x)
        x = blocks.relu(x, f"exit_{k}_relu_{index}")
    return x


def stage_head(x: Tensor, k: int, stages: tuple, norm: Norm, mid_width: int) -> Tensor:
    """A fresh copy of the remaining stages; names are `exit_<k>_` + the stage's own."""
    for number in range(k + 1, len(stages) + 1):
        made = stages[number - 1].build(x, f"exit_{k}_")
        x = made[f"feature_{number}"]
    return x


def linear_head(x: Tensor, k: int, stages: tuple, norm: Norm, mid_width: int) -> Tensor:
    """The map itself: pooling and dense layer are all of the exit."""
    return x


HEADS = {
    "dense": dense_head,
    "separable": separable_head,
    "bottleneck": bottleneck_head,
    "stage": stage_head,
    "linear": linear_head,
}


def attend(x: Tensor, k: int, norm: Norm) -> Tensor:
    """Multiplies a map by a mask in (0, 1) made from the map itself.

    Depthwise-separable convolution of stride 2, BN, ReLU, bilinear up-sampling back to
    the map's size, sigmoid. As the ReLU comes before it the mask is 0.5 or more.

    Source: the journal form of "Be Your Own Teacher": Zhang, Bao, Ma,
    "Self-Distillation: Towards Efficient and Compact Neural Networks", IEEE TPAMI 2021.

    Args:
        x: [B, H, W, C], H and W known.
        k: int, number of the exit.
        norm: callable, layer name -> batch norm layer.

    Returns:
        [B, H, W, C].
    """
    start = f"exit_{k}_attention_"
    mask = blocks.depthwise(x, 2, f"{start}dw")
    mask = blocks.conv_bn(mask, x.shape[-1], 1, 1, start, "", norm)
    mask = blocks.relu(mask, f"{start}relu")
    # Not `Resizing`: called without `training` it sets its default, True, for layers
    # after it too (Keras 3.15), and batch norm statistics move in inference.
    up = keras.layers.UpSampling2D(2, interpolation="bilinear", name=f"{start}up")
    mask = up(mask)
    over = [
        [0, big - side] for big, side in zip(mask.shape[1:3], x.shape[1:3], strict=True)
    ]
    if over != [[0, 0], [0, 0]]:  # maps with an odd side
        mask = keras.layers.Cropping2D(over, name=f"{start}crop")(mask)
    mask = keras.layers.Activation("sigmoid", name=f"{start}mask")(mask)
    return keras.layers.Multiply(name=f"exit_{k}_attention")([x, mask])
