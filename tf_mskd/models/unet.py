"""`unet`: a small U-shaped network whose exits stand on the maps of its decoder."""

from collections.abc import Sequence

import keras
from keras import ops

from tf_mskd.models import blocks
from tf_mskd.tasks import Task
from tf_mskd.tasks.image_quality import gradient_map
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.names import numbered
from tf_mskd.utils.types import Tensor

NAME = "unet"
LEVELS = 3  # of the decoder, the bottom among them, with an exit each
WIDTH = 32  # channels at full size, doubled at each level below
SLOPE = 0.2  # of the ReLUs below 0: of four channels none may die
AUX = ("gradient",)


def build_unet(
    num_outputs: int,
    exits: list[int],
    features: list[str],
    input_shape: tuple[int | None, int | None, int],
    width: float,
    dropout: float,
    gradient: bool,
    task: Task,
) -> keras.Model:
    """Builds the network; `create_model` checks what they share.

    Two 3x3 convolutions and leaky ReLUs a level, 3 levels of 32, 64 and 128 channels,
    average pooling down, a squeeze gate at the bottom, bilinear doubling up beside the
    map of the encoder. Exit 1 reads the bottom, exit 2 the map of half size, exit 3
    that of full size, each doubled up to the image; `feature_k` is the map of exit k.
    No batch norm: a pixel's answer depends on its image alone.

    The gradient branch reads how steep the image is (`image_quality.gradient_map`) with
    half the channels; its maps go beside the decoder's, and `gradient_1` [B, H, W, C]
    is its own answer.

    Args:
        num_outputs: width of an exit.
        exits: numbers of the exits, of 1..3.
        features: names of further outputs, of `feature_k`.
        input_shape: height and width, None for any, and channels of the images.
        width: multiplier of all channel counts.
        dropout: rate before each exit.
        gradient: whether the network has the gradient branch.
        task: `Task` whose exits are maps.

    Returns:
        functional model, as `create_model` describes.

    Raises:
        UserError: for a task of vectors, or smaller images.

    Source: Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015, arXiv 1505.04597; leaky
        ReLUs as in Chen, Chen, Xu, Koltun, "Learning to See in the Dark", CVPR 2018.
        Reconstruction: sizes, gate and branch after the abstract of low-light
        enhancement by knowledge distillation, see the method `llkd`.
    """
    _check(task, input_shape)
    image = keras.Input(input_shape, name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32", name="input_scaling")(image)
    widths = [blocks.scaled(WIDTH * 2**level, width) for level in range(LEVELS)]
    outputs, beside = {}, [None] * (LEVELS - 1)
    if gradient:
        outputs["gradient_1"], beside = _gradient_branch(x, widths)
    maps = _encode(x, widths)
    made = _decode(maps, widths, beside, max(_numbers(exits, features)))
    for k in exits:
        y = made[f"feature_{k}"]
        for level in reversed(range(LEVELS - k)):
            y = Doubled(name=f"exit_{k}_up_{level + 1}")([y, maps[level]])
        y = task.classify(task.pool(y, k), k, num_outputs, dropout, input_shape[:2])
        outputs[f"exit_{k}"] = y
    outputs |= {name: made[name] for name in features}
    return keras.Model(image, outputs, name=NAME)


def feature_names(features: str | Sequence[str]) -> list[str]:
    """The features requested, each once.

    Raises:
        UserError: for one that this network does not have.
    """
    features = [features] if isinstance(features, str) else list(features)
    known = [f"feature_{k}" for k in range(1, LEVELS + 1)]
    for name in features:
        if name not in known:
            raise unknown_name(f"feature of {NAME}", name, known)
    return list(dict.fromkeys(features))


def check_options(
    aux_heads: Sequence[str],
    exit_head: str,
    attention: bool,
    pyramid_pooling: bool,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> None:
    """Raises `UserError` for options of `create_model` that this network has not."""
    for kind in aux_heads:
        if kind not in AUX:
            raise unknown_name(f"auxiliary head of {NAME}", kind, AUX)
    others = {
        "exit_head": exit_head not in ("dense", "linear"),
        "attention": attention,
        "pyramid_pooling": pyramid_pooling,
        "mean": mean is not None,
        "std": std is not None,
    }
    for option, given in others.items():
        if given:
            raise UserError(
                f"Model {NAME!r} has no {option}: its exits are 1x1 convolutions and "
                "it divides images by 255; leave it out."
            )


def _check(task, input_shape):
    if not task.dense:
        raise UserError(
            f"Model {NAME!r} answers for every pixel, task {task.name!r} does not: "
            "take --task=restoration, or another model such as 'resnet10'."
        )
    least = 2 ** (LEVELS - 1)
    if any(side is not None and side < least for side in input_shape[:2]):
        raise UserError(
            f"Model {NAME!r} halves the image {LEVELS - 1} times and needs "
            f"{least}x{least} pixels or more, got input_shape={input_shape}."
        )


def _numbers(exits, features):
    return [*exits, *(int(n.rpartition("_")[2]) for n in numbered(features, "feature"))]


def _convs(x, width, name, last=""):
    """Two convolutions; `last` names the layer whose output is the map."""
    for index in (1, 2):
        conv = keras.layers.Conv2D(
            width,
            3,
            padding="same",
            kernel_initializer=keras.initializers.HeNormal(),
            name=f"{name}_conv_{index}",
        )
        x = conv(x)
        relu = last if last and index == 2 else f"{name}_relu_{index}"
        x = keras.layers.LeakyReLU(SLOPE, name=relu)(x)
    return x


def _encode(x, widths):
    """The maps of the encoder, large to small."""
    maps = []
    for level, width in enumerate(widths, start=1):
        if maps:
            x = keras.layers.AveragePooling2D(2, name=f"down_{level}")(x)
        x = _convs(x, width, f"encoder_{level}")
        maps.append(x)
    return maps


def _decode(maps, widths, beside, deepest):
    """`feature_1` .. of the bottom and of the levels up to the deepest one needed."""
    x = _squeeze_gate(maps[-1], widths[-1])
    made = {"feature_1": x}
    for k in range(2, deepest + 1):
        level = LEVELS - k
        x = Doubled(name=f"up_{k}")([x, maps[level]])
        guide = [] if beside[level] is None else [beside[level]]
        x = keras.layers.Concatenate(name=f"beside_{k}")([x, maps[level], *guide])
        x = _convs(x, widths[level], f"decoder_{k}", last=f"feature_{k}")
        made[f"feature_{k}"] = x
    return made


def _squeeze_gate(x, width):
    """Channels weighed by what the whole map holds; Hu et al., CVPR 2018."""
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name="gate_pool")(x)
    inner = max(1, width // 4)
    gate = keras.layers.Conv2D(inner, 1, activation="leaky_relu", name="gate_squeeze")(
        gate
    )
    gate = keras.layers.Conv2D(width, 1, activation="sigmoid", name="gate_excite")(gate)
    return keras.layers.Multiply(name="feature_1")([x, gate])


def _gradient_branch(x, widths):
    """`gradient_1`, and the branch's maps of full and of half size."""
    channels = x.shape[-1]
    top, low = (max(1, width // 2) for width in widths[:2])
    x = GradientMap(dtype="float32", name="gradient_input")(x)
    full = _convs(x, top, "gradient_encoder_1")
    x = keras.layers.AveragePooling2D(2, name="gradient_down")(full)
    half = _convs(x, low, "gradient_encoder_2")
    x = Doubled(name="gradient_up")([half, full])
    x = keras.layers.Concatenate(name="gradient_beside")([x, full])
    x = _convs(x, top, "gradient_decoder")
    answer = keras.layers.Conv2D(channels, 1, dtype="float32", name="gradient_1")(x)
    return answer, [x, half]


@keras.saving.register_keras_serializable(package="tf_mskd")
class Doubled(keras.layers.Layer):
    """A map of twice the height and width, bilinear, half-pixel centres.

    Call with [x, like]; the result is as large as `like`, which is twice as high and
    wide as x or one pixel more, for which the edge is repeated. Sizes may be unknown
    until the network runs.
    """

    def call(self, inputs):
        x, like = inputs
        height, width = ops.shape(like)[1:3]
        x = _doubled(x, 1)[:, :height]
        return _doubled(x, 2)[:, :, :width]

    def compute_output_spec(self, inputs):
        x, like = inputs
        shape = (x.shape[0], *like.shape[1:3], x.shape[-1])
        return keras.KerasTensor(shape, self.compute_dtype)


def _doubled(x, axis):
    """One pixel more than twice as long: each the mean of (a, b, b, c) / 4."""
    x = ops.repeat(x, 2, axis=axis)
    x = ops.moveaxis(x, axis, 0)
    x = ops.concatenate([x[:1], x, x[-1:], x[-1:]], axis=0)
    x = (x[:-2] + 2 * x[1:-1] + x[2:]) / 4
    return ops.moveaxis(x, 0, axis)


@keras.saving.register_keras_serializable(package="tf_mskd")
class GradientMap(keras.layers.Layer):
    """`image_quality.gradient_map` of images [B, H, W, C], in float32."""

    def call(self, inputs: Tensor) -> Tensor:
        return gradient_map(inputs)
