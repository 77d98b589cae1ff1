"""Auxiliary heads: further outputs that some methods teach with and nobody deploys."""

from collections.abc import Iterable

import keras

from tf_mskd.models import blocks
from tf_mskd.models.backbone import Backbone, Norm
from tf_mskd.utils.errors import unknown_name
from tf_mskd.utils.names import ROTATIONS
from tf_mskd.utils.types import Tensors


def check(kinds: Iterable[str]) -> None:
    """Raises `UserError` unless all `kinds` are kinds of auxiliary head."""
    for kind in kinds:
        if kind not in KINDS:
            raise unknown_name("auxiliary head", kind, KINDS)


def projection(
    made: Tensors, backbone: Backbone, num_classes: int, norm: Norm
) -> Tensors:
    """`projection_K` [B, D] from `embedding_K`: linear, ReLU, linear, all of width D.

    Source: Xu, Liu, Li, Loy, "Knowledge Distillation Meets Self-Supervision", ECCV
        2020, arXiv 2006.07114, released code.
    """
    last = len(backbone.stages)
    x = made[f"embedding_{last}"]
    width = x.shape[-1]
    x = keras.layers.Dense(width, "relu", name="projection_dense")(x)
    name = f"projection_{last}"
    return {name: keras.layers.Dense(width, dtype="float32", name=name)(x)}


def rotation(
    made: Tensors, backbone: Backbone, num_classes: int, norm: Norm
) -> Tensors:
    """`rotation_k` [B, 4 * classes] behind every stage k: joint class and rotation.

    Head k is a fresh copy of the stages after k, pooling and a dense layer. The head
    behind the last stage is one 3x3 convolution, batch norm and ReLU of its width.

    Source: Yang, An, Cai, Xu, IJCAI 2021, arXiv 2107.13715. Departs from the source:
        the last head there is one more stage of the network.
    """
    last, outputs = len(backbone.stages), {}
    for k in range(1, last + 1):
        x, start = made[f"feature_{k}"], f"rotation_{k}_"
        for number in range(k + 1, last + 1):
            stage = backbone.stages[number - 1].build(x, start)
            x = stage[f"feature_{number}"]
        if backbone.close:
            x = blocks.relu(backbone.close(x, f"{start}bn"), f"{start}relu")
        if k == last:
            x = blocks.conv_bn(x, x.shape[-1], 3, 1, start, "_last", norm)
            x = blocks.relu(x, f"{start}relu_last")
        x = keras.layers.GlobalAveragePooling2D(name=f"{start}pool")(x)
        count = ROTATIONS * num_classes
        dense = keras.layers.Dense(count, dtype="float32", name=f"rotation_{k}")
        outputs[f"rotation_{k}"] = dense(x)
    return outputs


def paraphraser(
    made: Tensors, backbone: Backbone, num_classes: int, norm: Norm, rate: float = 0.5
) -> Tensors:
    """`factor_K` [B, H, W, C / 2], and `reconstruction_K` [B, H, W, C] of `feature_K`.

    Three 3x3 convolutions to the factor, three transposed ones back; biases, leaky
    ReLU 0.1 after each, no batch norm.

    Source: Kim, Park, Kwak, "Paraphrasing Complex Network", NeurIPS 2018, arXiv
        1802.04977.
    """
    last = len(backbone.stages)
    x = made[f"feature_{last}"]
    width, narrow = x.shape[-1], max(1, int(rate * x.shape[-1]))
    outputs = {}
    down, up = (width, narrow, narrow), (narrow, width, width)
    for part, name, layer, widths in (
        ("encoder", "factor", keras.layers.Conv2D, down),
        ("decoder", "reconstruction", keras.layers.Conv2DTranspose, up),
    ):
        for index, filters in enumerate(widths, start=1):
            tag = f"paraphraser_{part}_{index}"
            x = layer(filters, 3, padding="same", name=tag)(x)
            end = f"{name}_{last}" if index == 3 else f"{tag}_relu"
            x = keras.layers.LeakyReLU(negative_slope=0.1, name=end)(x)
        outputs[f"{name}_{last}"] = x
    return outputs


# by kind; the outputs of each are listed in `names.AUX_OUTPUTS`
KINDS = {"projection": projection, "rotation": rotation, "paraphraser": paraphraser}


def attach(
    kinds: Iterable[str],
    made: Tensors,
    backbone: Backbone,
    num_classes: int,
    norm: Norm,
) -> Tensors:
    """Makes the outputs of some kinds of auxiliary head.

    Args:
        kinds: iterable of str, keys of `KINDS`.
        made: dict of tensors, all `feature_k` and `embedding_K` among them.
        backbone: `Backbone` the maps come from.
        num_classes: int.
        norm: callable, layer name -> batch norm layer.

    Returns:
        dict, output name -> tensor.
    """
    outputs = {}
    for kind in kinds:
        outputs.update(KINDS[kind](made, backbone, num_classes, norm))
    return outputs
