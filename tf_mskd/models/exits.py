"""Exits: from the map of a stage to logits.

The rule of names: exit k makes `embedding_k` [B, D], its pooled vector, and `exit_k`
[B, classes], its logits in float32. The layer that makes an output carries its name.
"""

import keras

from tf_mskd.models import blocks
from tf_mskd.models.backbone import Backbone, Norm
from tf_mskd.models.heads import HEADS, attend
from tf_mskd.utils.errors import unknown_name
from tf_mskd.utils.types import Tensor


def head_map(
    x: Tensor,
    k: int,
    backbone: Backbone,
    kind: str,
    attention: bool,
    mid_width: int,
    norm: Norm,
) -> Tensor:
    """The map that exit k < K pools, from the map of stage k.

    Args:
        x: [B, H, W, C], `feature_k`.
        k: int, number of the exit.
        backbone: `Backbone` the map comes from.
        kind: str, a key of `HEADS`.
        attention: bool, whether a mask goes over the map first.
        mid_width: int, inner width of the "bottleneck" head.
        norm: callable, layer name -> batch norm layer.

    Returns:
        [B, H', W', D].
    """
    # A copied stage of a pre-activation network brings its own batch norm and ReLU.
    if kind != "stage":
        x = _activate(x, backbone, f"exit_{k}_bn", f"exit_{k}_relu")
    if attention:
        x = attend(x, k, norm)
    x = HEADS[kind](x, k, backbone.stages, norm, mid_width)
    if kind == "stage":
        last = f"exit_{k}_preact_{len(backbone.stages)}"
        x = _activate(x, backbone, last, f"exit_{k}_relu")
    return x


def _activate(x, backbone, bn, relu):
    return blocks.relu(backbone.close(x, bn), relu) if backbone.close else x


def pool(x: Tensor, k: int) -> Tensor:
    """`embedding_k` [B, C]: the mean over the positions of a map or a sequence.

    Args:
        x: [B, H, W, C]; or [B, T, C], positions that its mask leaves out do not count;
            or [B, C], which stays as it is.
        k: int, number of the exit.
    """
    kinds = {
        2: keras.layers.Identity,
        3: keras.layers.GlobalAveragePooling1D,
        4: keras.layers.GlobalAveragePooling2D,
    }
    return kinds[len(x.shape)](name=f"embedding_{k}")(x)


def classify(x: Tensor, k: int, num_classes: int, dropout: float = 0.0) -> Tensor:
    """`exit_k`: float32 logits [B, num_classes] from a vector [B, D]."""
    if dropout:
        x = keras.layers.Dropout(dropout, name=f"exit_{k}_dropout")(x)
    return keras.layers.Dense(num_classes, dtype="float32", name=f"exit_{k}")(x)


def check_head(kind: str) -> None:
    """Raises `UserError` unless `kind` is a kind of exit head."""
    if kind not in HEADS:
        raise unknown_name("exit head", kind, HEADS)
