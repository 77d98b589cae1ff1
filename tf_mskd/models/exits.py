"""Exits: from the map of a stage to the map that an exit answers from."""

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


def check_head(kind: str) -> None:
    """Raises `UserError` unless `kind` is a kind of exit head."""
    if kind not in HEADS:
        raise unknown_name("exit head", kind, HEADS)
