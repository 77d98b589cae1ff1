"""Networks of `keras.applications` that read raw images, as the library's own do."""

import inspect
import os
import typing
import warnings

import keras
import numpy as np

from tf_mskd.models import graph
from tf_mskd.utils.errors import UserError, unknown_name

SET_HERE = (  # arguments of a network's function that `create_application` decides
    "input_shape",
    "input_tensor",
    "classes",
    "classifier_activation",
    "include_preprocessing",
    "pooling",
    "weights",
    "weights_name",
    "name",
)


def application_arguments(name: str) -> dict[str, typing.Any]:
    """Returns the further arguments that a network takes, with their defaults.

    Args:
        name: str, a network of `keras.applications`.

    Raises:
        UserError: for an unknown network.

    Example:
        >>> application_arguments("MobileNetV2")
        {'alpha': 1.0, 'include_top': True}
    """
    parameters = inspect.signature(_function(name)).parameters
    return {n: p.default for n, p in parameters.items() if n not in SET_HERE}


def create_application(
    name: str,
    num_classes: int,
    input_shape: tuple[int, int, int],
    *,
    include_top: bool = False,
    weights: str | os.PathLike = "",
    **arguments: typing.Any,
) -> keras.Model:
    """Builds a network of `keras.applications` for raw images, 0 to 255.

    The network's family tells how it wants them, by its `preprocess_input`: scaled to
    [-1, 1], normalized, or as BGR without the mean. These steps become layers.

    Args:
        name: str, such as "MobileNetV2".
        num_classes: int, width of its end with `include_top`.
        input_shape: (int, int, int), height, width, channels of the images.
        include_top: bool, whether it ends in logits [B, num_classes]; else in a map.
        weights: path of a weights file, which must fit; "" for random weights. Nothing
            is downloaded.
        **arguments: of `application_arguments`.

    Returns:
        functional model with one output.

    Raises:
        UserError: for an unknown network, arguments, an image or a file that it does
            not take.

    Example:
        >>> net = create_application("VGG16", 10, (32, 32, 3))
        >>> net.input.shape, net.output.shape
        ((None, 32, 32, 3), (None, 1, 1, 512))
    """
    known = application_arguments(name)
    for argument in arguments:
        if argument not in known:
            raise unknown_name(f"argument of keras:{name}", argument, known)
    if include_top:
        arguments |= {"classes": num_classes, "classifier_activation": None}
    try:
        network = _function(name)(
            input_shape=tuple(input_shape),
            include_top=include_top,
            weights=None,
            **arguments,
        )
    except (ValueError, TypeError) as error:
        raise _refusal(f"keras:{name} cannot be built", error) from error
    if weights:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of layers that stay as they are
                network.load_weights(weights)
        except Exception as error:  # Keras and h5py raise many kinds
            what = f"{str(weights)!r} holds no weights of keras:{name}"
            kind = f"include_top={str(include_top).lower()}"
            raise _refusal(f"{what} with {kind}", error) from error
    return _on_raw_images(network, name)


def _refusal(what, error):
    return UserError(f"{what}: {' '.join(str(error).split())[:300]}")


def _function(name):
    known = [n for n in dir(keras.applications) if n[0].isupper()]
    if name not in known:
        raise unknown_name("network of keras.applications", name, known)
    return getattr(keras.applications, name)


def _on_raw_images(network, name):
    """The network behind the steps of its family's `preprocess_input`."""
    family = inspect.getmodule(_function(name))
    shape = network.input.shape[1:]
    try:
        flips, scale, offset = _steps(family.preprocess_input, shape[-1])
    except IndexError:
        raise UserError(
            f"keras:{name} reads RGB images, the data have {shape[-1]} channels."
        ) from None
    if not flips and (scale == 1).all() and (offset == 0).all():
        return network
    image = keras.Input(shape, name="image")
    x = keras.ops.flip(image, axis=-1) if flips else image
    x = keras.layers.Rescaling(
        scale.tolist(), offset.tolist(), dtype="float32", name="input_scaling"
    )(x)
    (end,) = graph.replay(network.outputs, {id(network.input): x})
    return keras.Model(image, end, name=network.name)


def _steps(preprocess, channels):
    """What `preprocess_input` does: (reverses channels, scale [C], offset [C])."""
    pixels = np.vstack([np.zeros(channels), 255 * np.eye(channels)])
    rows = preprocess(pixels.reshape(-1, 1, 1, channels)).reshape(-1, channels)
    offset, answers = rows[0], (rows[1:] - rows[0]) / 255
    flips = channels > 1 and answers[0, 0] == 0
    scale = np.diag(answers[::-1] if flips else answers)
    return flips, scale, offset
