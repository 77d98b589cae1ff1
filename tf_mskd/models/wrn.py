"""Wide residual networks with pre-activation blocks: three stages."""

import re

from tf_mskd.models import blocks
from tf_mskd.models.backbone import Backbone, Norm, Stage, halved
from tf_mskd.utils.choices import WIDE_RESNET
from tf_mskd.utils.errors import UserError


def parse_name(name: str) -> tuple[int, int]:
    """Depth and widening factor of a name such as "wrn_40_2".

    Raises:
        UserError: if the depth is not 6 n + 4 with n of 1 or more.

    Example:
        >>> parse_name("wrn_40_2")
        (40, 2)
    """
    depth, factor = (int(part) for part in re.fullmatch(WIDE_RESNET, name).groups())
    if depth < 10 or (depth - 4) % 6:
        below = max(10, depth - (depth - 4) % 6)
        raise UserError(
            f"A wide ResNet has a depth of 6 n + 4 (10, 16, 22, 28, 34, 40, ...), got "
            f"{depth} in {name!r}. Use for example 'wrn_{below}_{factor}'."
        )
    return depth, factor


def build_wrn(
    name: str, input_shape: tuple, width: float, norm: Norm, dropout: float
) -> Backbone:
    """The stem and stages of a wide ResNet.

    `feature_k` is the raw output of stage k, without batch norm and ReLU; `preact_k` is
    the next stage's first batch norm applied to it, and after the last stage the batch
    norm before the pooling.

    Source: Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016, arXiv 1605.07146,
    in the form of the CRD benchmark.

    Args:
        name: str, "wrn_<depth>_<widening factor>".
        input_shape: (int, int, int), height, width, channels of the images.
        width: float, multiplier of all channel counts.
        norm: callable, layer name -> batch norm layer.
        dropout: float in [0, 1), rate inside the blocks.

    Returns:
        `Backbone` with three stages of 16, 32, 64 channels times both factors.
    """
    depth, factor = parse_name(name)
    size, stages = input_shape[:2], []
    for number in (1, 2, 3):
        filters = blocks.scaled(8 * 2**number * factor, width)
        size = size if number == 1 else halved(size)
        build = _stage(number, (depth - 4) // 6, filters, norm, dropout)
        stages.append(Stage(filters, size, build))

    def stem(x):
        return blocks.conv(x, blocks.scaled(16, width), 3, 1, "stem_conv")

    def close(x, bn_name):
        return norm(bn_name)(x)

    return Backbone(stem, tuple(stages), close, embedding_dropout=False)


def _stage(number, depth, filters, norm, dropout):
    """The builder of one stage; its first batch norm is the stage before's preact."""

    def build(x, prefix):
        made = {}
        for index in range(1, depth + 1):
            stride = 2 if number > 1 and index == 1 else 1
            start = f"{prefix}stage_{number}_block_{index}_"
            names = {}
            if number > 1 and index == 1:
                names["bn"] = f"{prefix}preact_{number - 1}"
            if index == depth:
                names["feature"] = f"{prefix}feature_{number}"
            normed, x = blocks.preact_block(
                x, filters, stride, start, norm, dropout, **names
            )
            if "bn" in names:
                made[f"preact_{number - 1}"] = normed
        return {**made, f"feature_{number}": x}

    return build
