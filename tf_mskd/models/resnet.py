"""ResNets: four stages behind a stem for small images or that of ImageNet."""

from tf_mskd.models import blocks
from tf_mskd.models.backbone import Backbone, Norm, Stage, halved

BLOCKS = {
    "resnet10": (blocks.basic_block, (1, 1, 1, 1)),
    "resnet18": (blocks.basic_block, (2, 2, 2, 2)),
    "resnet34": (blocks.basic_block, (3, 4, 6, 3)),
    "resnet50": (blocks.bottleneck_block, (3, 4, 6, 3)),
    "resnet101": (blocks.bottleneck_block, (3, 4, 23, 3)),
    "resnet152": (blocks.bottleneck_block, (3, 8, 36, 3)),
}


def build_resnet(
    name: str,
    input_shape: tuple,
    width: float,
    norm: Norm,
    imagenet_stem: bool = False,
) -> Backbone:
    """The stem and stages of a ResNet.

    The stem for small images is a 3x3 convolution of stride 1, that of ImageNet a 7x7
    convolution of stride 2 and 3x3 max pooling of stride 2: stage 1 has a quarter of
    the image's sides.

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR
    2016, arXiv 1512.03385, table 1; the stem for small images is that of the CRD
    benchmark's CIFAR networks. The stride of a bottleneck sits on its 3x3 convolution,
    as in torchvision, on the first 1x1 in the paper: 4.09 G instead of 3.86 G
    multiply-accumulates of ResNet-50 for an image of 224x224.

    Args:
        name: str, a key of `BLOCKS`.
        input_shape: (int, int, int), height, width, channels of the images.
        width: float, multiplier of all channel counts.
        norm: callable, layer name -> batch norm layer.
        imagenet_stem: bool, the stem of ImageNet instead of that for small images.

    Returns:
        `Backbone` with four stages of 64, 128, 256, 512 channels times `width` (four
        times that in ResNet-50 and deeper), each after the first at half the size.

    Example:
        >>> [s.width for s in build_resnet("resnet10", (32, 32, 3), 0.5, None).stages]
        [32, 64, 128, 256]
    """
    block, depths = BLOCKS[name]
    expansion = 4 if block is blocks.bottleneck_block else 1
    size, stages = input_shape[:2], []
    if imagenet_stem:
        size = halved(halved(size))
    for number, depth in enumerate(depths, start=1):
        filters = blocks.scaled(32 * 2**number, width)
        size = size if number == 1 else halved(size)
        build = _stage(number, block, depth, filters, norm)
        stages.append(Stage(expansion * filters, size, build))

    def stem(x):
        kernel, stride = (7, 2) if imagenet_stem else (3, 1)
        filters = blocks.scaled(64, width)
        x = blocks.conv_bn(x, filters, kernel, stride, "stem_", "", norm)
        x = blocks.relu(x, "stem_relu")
        return blocks.max_pool(x, "stem_pool") if imagenet_stem else x

    return Backbone(stem, tuple(stages))


def _stage(number, block, depth, filters, norm):
    """The builder of one stage; its last block carries the output names."""

    def build(x, prefix):
        for index in range(1, depth + 1):
            stride = 2 if number > 1 and index == 1 else 1
            start = f"{prefix}stage_{number}_block_{index}_"
            names = {}
            if index == depth:
                names["preact"] = f"{prefix}preact_{number}"
                names["feature"] = f"{prefix}feature_{number}"
            preact, x = block(x, filters, stride, start, norm, **names)
        return {f"preact_{number}": preact, f"feature_{number}": x}

    return build
