"""VGG networks with batch norm: five blocks of 3x3 convolutions, four taps."""

from collections.abc import Sequence

import keras

from tf_mskd.models import blocks
from tf_mskd.models.backbone import Backbone, Norm, Stage
from tf_mskd.utils.errors import UserError

DEPTHS = {
    "vgg8": (1, 1, 1, 1, 1),
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
WIDTHS = (64, 128, 256, 512, 512)


def build_vgg(
    name: str, input_shape: tuple, width: float, norm: Norm, taps: Sequence[int]
) -> Backbone:
    """The stages of a VGG network.

    Max pooling of 2 stands after blocks 1 to 3, and after block 4 where the images are
    64 or more wide. A stage runs from the pooling after one tap to the next tap; taps
    are before the pooling, after the ReLU.

    Source: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", ICLR 2015, arXiv 1409.1556, in the form of the CRD benchmark (Tian,
    Krishnan, Isola, ICLR 2020, arXiv 1910.10699): batch norm, no hidden dense layers.

    Args:
        name: str, a key of `DEPTHS`.
        input_shape: (int, int, int), height, width, channels of the images.
        width: float, multiplier of all channel counts.
        norm: callable, layer name -> batch norm layer.
        taps: four ascending block numbers, the last one 5.

    Returns:
        `Backbone` with four stages.

    Raises:
        UserError: if the taps or the image size do not fit.
    """
    taps = _checked_taps(taps)
    if min(input_shape[:2]) < 8:
        raise UserError(
            f"{name} halves the image three times and needs 8x8 pixels or more, got "
            f"input_shape={input_shape}. Use larger images or a resnet."
        )
    last_pool = 4 if input_shape[1] >= 64 else 3
    widths = [blocks.scaled(filters, width) for filters in WIDTHS]
    stages = []
    for number, tap in enumerate(taps, start=1):
        first = taps[number - 2] + 1 if number > 1 else 1
        pools = min(tap - 1, last_pool)  # poolings between the image and this tap
        size = tuple(side // 2**pools for side in input_shape[:2])
        build = _stage(number, first, tap, DEPTHS[name], widths, last_pool, norm)
        stages.append(Stage(widths[tap - 1], size, build))
    return Backbone(lambda x: x, tuple(stages))


def _checked_taps(taps):
    taps = tuple(taps)
    ascending = all(a < b for a, b in zip(taps, taps[1:], strict=False))
    inside = all(tap in (1, 2, 3, 4, 5) for tap in taps)
    if len(taps) != 4 or not inside or not ascending or taps[-1] != 5:
        raise UserError(
            "vgg_taps takes four ascending block numbers of 1..5 that end in 5, got "
            f"{taps}. Use for example (1, 2, 3, 5)."
        )
    return taps


def _stage(number, first, tap, depths, widths, last_pool, norm):
    """The builder of the blocks `first` .. `tap`, with the pooling before each."""

    def build(x, prefix):
        for block in range(first, tap + 1):
            if 1 < block <= last_pool + 1:
                x = keras.layers.MaxPooling2D(2, name=f"{prefix}pool_{block - 1}")(x)
            for index in range(1, depths[block - 1] + 1):
                start = f"{prefix}block_{block}_"
                ends = block == tap and index == depths[block - 1]
                bn = f"{prefix}preact_{number}" if ends else f"{start}bn_{index}"
                act = f"{prefix}feature_{number}" if ends else f"{start}relu_{index}"
                name = f"{start}conv_{index}"
                x = blocks.conv(x, widths[block - 1], 3, 1, name, use_bias=True)
                preact = norm(bn)(x)
                x = blocks.relu(preact, act)
        return {f"preact_{number}": preact, f"feature_{number}": x}

    return build
