"""`create_model`: a network by name, with the exits and features requested."""

import functools
from collections.abc import Sequence

import keras

from tf_mskd.models import aux_heads as auxiliary
from tf_mskd.models import blocks, families, pyramid, unet
from tf_mskd.models import exits as heads
from tf_mskd.tasks import Task, create_task
from tf_mskd.utils.channel_statistics import CHANNEL_STATISTICS
from tf_mskd.utils.choices import MODELS
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.names import number, numbered


def available_models() -> list[str]:
    """Names `create_model` takes; of the wide ResNets ("wrn_D_K") the usual ones.

    Example:
        >>> available_models()[:3]
        ['resnet10', 'resnet18', 'resnet34']
    """
    return list(MODELS)


def create_model(
    name: str,
    num_classes: int,
    *,
    exits: str | Sequence[int] = "last",
    exit_head: str = "dense",
    input_shape: tuple[int, int, int] = (32, 32, 3),
    stem: str = "small",
    width: float = 1.0,
    features: str | Sequence[str] = (),
    aux_heads: str | Sequence[str] = (),
    attention: bool = False,
    pyramid_pooling: bool = False,
    dropout: float = 0.0,
    vgg_taps: Sequence[int] = (1, 2, 3, 5),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    synchronized_bn: bool = False,
    task: str | Task = "classification",
) -> keras.Model:
    """Builds a network whose output is a dict of named tensors.

    Exit K (3 in a wide ResNet, 4 in the others) is the network's own pooling and
    dense layer; exit k < K is a head on the map of stage k. Nothing deeper than the
    deepest output requested is built. Layer names do not depend on the outputs
    requested, so weights can be copied between two builds by layer name.

    Args:
        name: str, one of `available_models()` or any "wrn_<depth>_<factor>". "unet" is
            for tasks that answer every pixel; see `models/unet.py` for what it takes.
        num_classes: int, 1 or more.
        exits: "last", "all", or the numbers of the exits, from 1 to K.
        exit_head: kind of head of the exits before the last: "dense", "separable",
            "bottleneck", "stage" or "linear".
        input_shape: (int, int, int), height, width, channels of the images; of "unet"
            height and width may be None, for images of any size.
        stem: "small", which keeps the size of images of 32x32 or 64x64, or, of ResNets
            and MobileNets, "imagenet", after which stage 1 ends at a quarter of the
            image's sides, as in the networks published for ImageNet.
        width: float > 0, multiplier of all channel counts; of a MobileNet they are
            rounded to multiples of 8.
        features: names of further outputs: `feature_k` [B, H, W, C], the map of stage k
            after its last ReLU (raw in a wide ResNet, and in stages 1 to 3 of
            mobilenet_v2, which have none there); `preact_k`, the map before that ReLU
            (in a wide ResNet after the batch norm that follows the map; `feature_k`
            itself in those stages of mobilenet_v2); `embedding_k` [B, D], the vector
            before the dense layer of exit k.
        aux_heads: kinds of further outputs that some methods teach with:
            "projection" (`projection_K` [B, D]), "rotation" (`rotation_k`
            [B, 4 * num_classes]),
            "paraphraser" (`factor_K`, `reconstruction_K`); see `models/aux_heads.py`.
        attention: bool, a mask over the map each head reads.
        pyramid_pooling: bool, pyramid pooling before the last exit, for tasks that
            answer at every position; see `models/pyramid.py`.
        dropout: float in [0, 1), rate before each dense layer; in a wide ResNet between
            the convolutions of each block instead.
        vgg_taps: the four blocks whose maps are `feature_1` .. `feature_4` of a VGG.
        mean, std: per channel, in units of the [0, 1] range, of the scaling the network
            does first. Default: those of CIFAR-100 for 3 channels, else 0.5. Networks
            published for ImageNet have 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225.
        synchronized_bn: bool, batch statistics over all replicas.
        task: what the exits answer, a `Task` or the name of one.

    Returns:
        functional model; takes [B, H, W, C] in 0 .. 255, returns {"exit_k": float32
        [B, num_classes], ...}; `model.name` is `name`.

    Raises:
        UserError: if an argument is out of range or a name unknown.

    Source: stages, heads and sizes after Xu et al., "Multiple-Stage Knowledge
        Distillation", Applied Sciences 12(19):9453, 2022; the networks'
        sources stand in their modules.

    Example:
        >>> model = create_model("resnet10", 100, exits="all", features=["feature_2"])
        >>> sorted(model.output), model.output["feature_2"].shape
        (['exit_1', 'exit_2', 'exit_3', 'exit_4', 'feature_2'], (None, 16, 16, 128))
    """
    any_size = name == unet.NAME
    input_shape = _check(num_classes, input_shape, width, dropout, any_size)
    families.check_stem(name, stem)
    task = create_task(task)
    num_outputs = task.num_outputs(num_classes)
    heads.check_head(exit_head)
    aux_heads = [aux_heads] if isinstance(aux_heads, str) else list(aux_heads)
    if name == unet.NAME:
        unet.check_options(aux_heads, exit_head, attention, pyramid_pooling, mean, std)
        return unet.build_unet(
            num_outputs,
            _exit_numbers(exits, unet.LEVELS, name),
            unet.feature_names(features),
            input_shape,
            width,
            dropout,
            gradient=bool(aux_heads),
            task=task,
        )
    auxiliary.check(aux_heads)
    if task.dense and aux_heads:
        raise UserError(
            f"Networks of the task {task.name!r} have no auxiliary heads, got "
            f"{', '.join(aux_heads)}: take a method that needs none, such as 'mskd'."
        )
    norm = functools.partial(blocks.batch_norm, synchronized=synchronized_bn)
    backbone = families.build_backbone(
        name, input_shape, stem, width, norm, dropout, vgg_taps
    )
    last = len(backbone.stages)
    wanted = [f"exit_{k}" for k in _exit_numbers(exits, last, name)]
    if pyramid_pooling:
        pyramid.check_task(task)
        pyramid.check_exits(wanted, last)
    wanted += _feature_names(features, last, task)
    needed = [*wanted, f"embedding_{last}"] if aux_heads else wanted

    image = keras.Input(input_shape, name="image")
    x = _scaling(input_shape[-1], mean, std)(image)
    made = _build_stages(x, backbone, needed)
    mid_width = blocks.scaled(128, width)

    def head_map(k):
        """The map that exit k pools, [B, h, w, C]."""
        x = made[f"feature_{k}"]
        if k < last:
            head = backbone.of_one_size(k) if task.dense else backbone
            return heads.head_map(x, k, head, exit_head, attention, mid_width, norm)
        if backbone.close:
            x = blocks.relu(made[f"preact_{k}"], f"exit_{k}_relu")
        return pyramid.pyramid_pooling(x, k, width, norm) if pyramid_pooling else x

    rate = dropout if backbone.embedding_dropout else 0.0
    pooled = [*numbered(needed, "exit"), *numbered(needed, "embedding")]
    for k in sorted({number(n) for n in pooled}):
        x = task.pool(head_map(k), k)
        if not task.dense:
            made[f"embedding_{k}"] = x
        if f"exit_{k}" in wanted:
            size = input_shape[:2]
            made[f"exit_{k}"] = task.classify(x, k, num_outputs, rate, size)
    beside = auxiliary.attach(aux_heads, made, backbone, num_classes, norm)
    outputs = {**{n: made[n] for n in wanted}, **beside}
    return keras.Model(image, outputs, name=name)


def _build_stages(x, backbone, wanted):
    """All maps of the backbone down to the deepest one the outputs need."""
    deepest = max(number(n) for n in wanted)
    made, x = {}, backbone.stem(x)
    for k, stage in enumerate(backbone.stages[:deepest], start=1):
        made.update(stage.build(x, ""))
        x = made[f"feature_{k}"]
    closing = {f"preact_{deepest}"}
    if deepest == len(backbone.stages):
        closing |= {f"exit_{deepest}", f"embedding_{deepest}"}
    if backbone.close and closing & set(wanted):
        made[f"preact_{deepest}"] = backbone.close(x, f"preact_{deepest}")
    return made


def _check(num_classes, input_shape, width, dropout, any_size):
    """Refuses numbers out of range; returns the input shape as a tuple."""
    shape = tuple(input_shape)
    given = [n for n in shape[:2] if not (any_size and n is None)] + list(shape[2:])
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in given):
        raise UserError(
            "input_shape takes height, width and channels as three positive ints, got "
            f"{shape}. Use for example (32, 32, 3)."
        )
    if num_classes < 1:
        raise UserError(f"num_classes must be 1 or more, got {num_classes}.")
    if not width > 0:
        raise UserError(f"width must be above 0, got {width}. 1.0 is the full network.")
    if not 0 <= dropout < 1:
        raise UserError(f"dropout must be in [0, 1), got {dropout}. 0 turns it off.")
    return shape


def _exit_numbers(exits, last, name):
    """The numbers of the exits requested, ascending."""
    if isinstance(exits, str):
        named = {"last": [last], "all": list(range(1, last + 1))}
        if exits not in named:
            raise unknown_name("choice of exits", exits, named)
        return named[exits]
    numbers = sorted(set(exits))
    outside = [k for k in numbers if k not in range(1, last + 1)]
    if outside or not numbers:
        raise UserError(
            f"exits of {name} are a selection of 1..{last}, got {list(exits)}. Use "
            "'last', 'all' or some of these numbers."
        )
    return [int(k) for k in numbers]


def _feature_names(features, last, task):
    """The features requested, each once."""
    features = [features] if isinstance(features, str) else list(features)
    kinds = ("feature", "preact") if task.dense else ("feature", "embedding", "preact")
    known = [f"{kind}_{k}" for kind in kinds for k in range(1, last + 1)]
    for name in features:
        if name not in known:
            raise unknown_name("feature", name, known)
    return list(dict.fromkeys(features))


def _scaling(channels, mean, std):
    """The layer (image / 255 - mean) / std, in float32 under any dtype policy."""
    is_rgb = channels == 3
    defaults = CHANNEL_STATISTICS["cifar100"] if is_rgb else [(0.5,) * channels] * 2
    mean = defaults[0] if mean is None else mean
    std = defaults[1] if std is None else std
    mean, std = ([float(v) for v in values] for values in (mean, std))
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise UserError(
            f"mean and std take one number for each of the {channels} channels, std "
            f"above 0, got mean={mean}, std={std}. Both in units of the [0, 1] range."
        )
    return keras.layers.Rescaling(
        [1 / (255 * s) for s in std],
        [-m / s for m, s in zip(mean, std, strict=True)],
        dtype="float32",
        name="input_scaling",
    )
