"""Pyramid pooling: beside each position of a map, what larger and larger parts hold."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from tf_mskd.models import blocks
from tf_mskd.models.backbone import Norm
from tf_mskd.tasks import Task
from tf_mskd.tasks.heads import ResizeMap
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.types import Tensor

BINS = (1, 2, 3, 6)  # a side of the grids that a map is pooled to
WIDTH = 512  # channels of the map that comes out
DROPOUT = 0.1  # of its whole channels


def pyramid_pooling(x: Tensor, k: int, width: float, norm: Norm) -> Tensor:
    """The map that the last exit answers from, in the light of the whole map.

    The map is averaged over grids of 1x1, 2x2, 3x3 and 6x6 bins, see `BinMeans`. Each
    grid goes through a 1x1 convolution to C / 4 channels, BN and ReLU and is resized to
    the map, bilinear, with half-pixel centres. The map and the grids, concatenated, go
    through a 3x3 convolution, BN, ReLU and dropout of whole channels. Grids of more
    bins a side than the map has positions are left out: an 8x8 map has all four, a 4x4
    map three.

    The batch norm behind the single bin has one value an image to learn from: train
    with several images a batch.

    Source: Zhao, Shi, Qi, Wang, Jia, "Pyramid Scene Parsing Network", CVPR 2017, arXiv
        1612.01105. Departs from its code, which resizes with aligned corners.

    Args:
        x: [B, H, W, C], H and W known.
        k: int, number of the exit; names of layers begin with `exit_<k>_pyramid_`.
        width: float > 0, multiplier of the 512 channels that come out.
        norm: callable, layer name -> batch norm layer.

    Returns:
        [B, H, W, 512 * width].

    Raises:
        UserError: if the size of the map is unknown.

    Example:
        >>> x = keras.Input((8, 8, 64))
        >>> pyramid_pooling(x, 4, 0.25, blocks.batch_norm).shape
        (None, 8, 8, 128)
    """
    size, channels = tuple(x.shape[1:3]), x.shape[-1]
    if None in size:
        raise UserError(
            f"Pyramid pooling needs a map of known size, exit {k} stands on "
            f"{tuple(x.shape)}: build the model with a fixed input_shape."
        )
    start = f"exit_{k}_pyramid_"
    parts = [x]
    for bins in BINS:
        if bins > min(size):
            continue
        y = BinMeans(bins, name=f"{start}pool_{bins}")(x)
        inner = max(1, channels // len(BINS))
        y = blocks.conv_bn(y, inner, 1, 1, start, f"_{bins}", norm)
        y = blocks.relu(y, f"{start}relu_{bins}")
        parts.append(ResizeMap(size, name=f"{start}resize_{bins}")(y))
    x = keras.layers.Concatenate(name=f"{start}beside")(parts)
    x = blocks.conv_bn(x, blocks.scaled(WIDTH, width), 3, 1, start, "", norm)
    x = blocks.relu(x, f"{start}relu")
    return keras.layers.SpatialDropout2D(DROPOUT, name=f"{start}dropout")(x)


@keras.saving.register_keras_serializable(package="tf_mskd")
class BinMeans(keras.layers.Layer):
    """Means of a map [B, H, W, C] over a grid of bins, [B, bins, bins, C].

    Row i goes from floor(i H / bins) to ceil((i + 1) H / bins), columns alike. Not
    `keras.layers.AdaptiveAveragePooling2D`, which gives the same: several of them on
    one map cannot be made int8 by TFLite (TensorFlow 2.21).

    Args:
        bins: int, at most H and W.
    """

    def __init__(self, bins, **kwargs):
        super().__init__(**kwargs)
        self.bins = bins

    def call(self, inputs):
        rows, columns = (
            ops.convert_to_tensor(_shares(side, self.bins), self.compute_dtype)
            for side in inputs.shape[1:3]
        )
        x = ops.tensordot(inputs, rows, [[1], [1]])  # [B, W, C, bins]
        x = ops.tensordot(x, columns, [[1], [1]])  # [B, C, bins, bins]
        return ops.transpose(x, (0, 2, 3, 1))

    def get_config(self):
        return {**super().get_config(), "bins": self.bins}


def _shares(side, bins):
    """float [bins, side]: what each bin takes of each position."""
    first = np.arange(bins)[:, None] * side // bins
    behind = -(-np.arange(1, bins + 1)[:, None] * side // bins)
    inside = (np.arange(side) >= first) & (np.arange(side) < behind)
    return inside / inside.sum(1, keepdims=True)


def check_task(task: Task) -> None:
    """Raises `UserError` for a task whose exits are no maps."""
    if not task.dense:
        raise UserError(
            "pyramid_pooling is for tasks whose exits are maps, those of the task "
            f"{task.name!r} are vectors: leave it out, or take another task."
        )


def check_exits(exits: Sequence[str], last: int) -> None:
    """Raises `UserError` unless the deepest exit of a network is built.

    Args:
        exits: names of the exits that are built.
        last: int, number of the deepest one that the network can have.
    """
    if f"exit_{last}" not in exits:
        raise UserError(
            f"pyramid_pooling stands before exit_{last}, got the exits "
            f"{', '.join(exits)}: build that one too, or leave pyramid_pooling out."
        )
