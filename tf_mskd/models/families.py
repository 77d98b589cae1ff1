"""The backbone of a name, by the family of the network."""

import re
from collections.abc import Sequence

from tf_mskd.models import mobilenet, resnet, vgg, wrn
from tf_mskd.models.backbone import Backbone, Norm
from tf_mskd.utils.choices import MODELS, STEMS, WIDE_RESNET
from tf_mskd.utils.errors import UserError, unknown_name

WITH_IMAGENET_STEM = (*resnet.BLOCKS, *mobilenet.NAMES)


def build_backbone(
    name: str,
    input_shape: tuple[int, int, int],
    stem: str,
    width: float,
    norm: Norm,
    dropout: float,
    vgg_taps: Sequence[int],
) -> Backbone:
    """The stem and stages of a network; arguments as `create_model` has them.

    Raises:
        UserError: if no network has this name, or the arguments do not fit it.

    Example:
        >>> shape = (224, 224, 3)
        >>> made = build_backbone("resnet18", shape, "imagenet", 1.0, None, 0.0, ())
        >>> [stage.size for stage in made.stages]
        [(56, 56), (28, 28), (14, 14), (7, 7)]
    """
    is_imagenet = stem == "imagenet"
    if name in resnet.BLOCKS:
        return resnet.build_resnet(name, input_shape, width, norm, is_imagenet)
    if name in mobilenet.NAMES:
        stride = 2 if is_imagenet else 1
        return mobilenet.build_mobilenet(name, input_shape, width, norm, stride)
    if name in vgg.DEPTHS:
        return vgg.build_vgg(name, input_shape, width, norm, vgg_taps)
    if _is_wide_resnet(name):
        return wrn.build_wrn(name, input_shape, width, norm, dropout)
    raise unknown_name("model", name, MODELS)


def check_stem(name: str, stem: str) -> None:
    """Raises `UserError` unless a network has a stem of this name.

    A name that no network has is left to `build_backbone`.
    """
    if stem not in STEMS:
        raise unknown_name("stem", stem, STEMS)
    without = name not in WITH_IMAGENET_STEM and (
        name in MODELS or _is_wide_resnet(name)
    )
    if stem == "imagenet" and without:
        raise UserError(
            f"{name} has no stem for ImageNet, got stem='imagenet': leave it at "
            f"'small', or take one of {', '.join(WITH_IMAGENET_STEM)}."
        )


def _is_wide_resnet(name):
    return isinstance(name, str) and re.fullmatch(WIDE_RESNET, name) is not None
