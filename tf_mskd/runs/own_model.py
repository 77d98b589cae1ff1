"""What --model and --teacher name beside the library's networks; without TensorFlow."""

import os
import pathlib
import re
import typing

from tf_mskd.runs import parsers
from tf_mskd.utils.choices import MODELS, STEMS, WIDE_RESNET
from tf_mskd.utils.errors import UserError, nearest, unknown_name

APPLICATION = "keras:"
PUBLISHED = r"(\w+)\?(\w+=.*)"
PUBLISHED_ARGUMENTS = {"stem": "small", "width": 1.0}
SUFFIXES = (".keras", ".h5", ".hdf5")
FUNCTION = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
FORMS = "keras:MobileNetV2, a .keras file or package.module:function"
REGISTRY_ONLY = ("exits", "attention", "stem", "width", "dropout", "vgg_taps")


def kind_of(text: str) -> str:
    """Returns what kind of network a text names.

    Args:
        text: str, the value of --model or --teacher.

    Returns:
        "keras" for a network of `keras.applications`, "published" for one of the
        library with weights published for PyTorch, "file", "function", or "name" for
        anything else: a network of the library, or a run folder.

    Example:
        >>> [kind_of(t) for t in ("keras:VGG16", "a/net.keras", "my.nets:small")]
        ['keras', 'file', 'function']
        >>> kind_of("resnet34?stem=imagenet&weights=resnet34.pth")
        'published'
        >>> kind_of("resnet18"), kind_of("runs/teacher")
        ('name', 'name')
    """
    if text.startswith(APPLICATION):
        return "keras"
    if re.fullmatch(PUBLISHED, text):
        return "published"
    if pathlib.PurePath(text).suffix in SUFFIXES:
        return "file"
    return "function" if re.fullmatch(FUNCTION, text) else "name"


def read_application(flag: str, text: str) -> tuple[str, dict[str, str], str]:
    """Reads "keras:NAME?argument=value&weights=PATH".

    Args:
        flag: str, "model" or "teacher", for the error.
        text: str.

    Returns:
        (name, dict of the arguments as text, path of the weights or "").

    Raises:
        UserError: if it cannot be read, or asks for a download.

    Example:
        >>> read_application("model", "keras:MobileNetV2?alpha=0.35&weights=w.h5")
        ('MobileNetV2', {'alpha': '0.35'}, 'w.h5')
    """
    name, _, query = text.removeprefix(APPLICATION).partition("?")
    arguments = parsers.query(flag, query)
    weights = arguments.pop("weights", "")
    if weights.lower() == "none":
        weights = ""
    if weights == "imagenet":
        raise UserError(
            f"--{flag}={text} would download weights: save them to a file and name it, "
            "weights=PATH."
        )
    return name, arguments, weights


def read_published(flag: str, text: str) -> tuple[str, dict[str, typing.Any], str]:
    """Reads "NAME?stem=imagenet&weights=PATH", a network with PyTorch weights.

    Args:
        flag: str, "model" or "teacher", for the error.
        text: str.

    Returns:
        (name, dict of arguments of `create_model`, path of the weights).

    Raises:
        UserError: if it cannot be read, or names no weights.

    Example:
        >>> read_published("teacher", "resnet34?stem=imagenet&weights=resnet34.pth")
        ('resnet34', {'stem': 'imagenet'}, 'resnet34.pth')
    """
    name, _, query = text.partition("?")
    if name not in MODELS and not re.fullmatch(WIDE_RESNET, name):
        raise UserError(f"Unknown network {name!r} of --{flag}{nearest(name, MODELS)}")
    arguments = parsers.query(flag, query)
    weights = arguments.pop("weights", "")
    if not weights:
        raise UserError(f"--{flag}={text} has no weights: name a file, weights=PATH.")
    for argument in arguments:
        if argument not in PUBLISHED_ARGUMENTS:
            known = (*PUBLISHED_ARGUMENTS, "weights")
            raise unknown_name(f"argument of --{flag}={name}", argument, known)
    if arguments.get("stem", "small") not in STEMS:
        raise unknown_name(f"stem of --{flag}={name}", arguments["stem"], STEMS)
    return name, parsers.typed(flag, arguments, PUBLISHED_ARGUMENTS), weights


def file_of(flag: str, text: str) -> str:
    """Returns the path of the file that a network's weights come from, or ""."""
    kind = kind_of(text)
    if kind == "keras":
        return read_application(flag, text)[2]
    if kind == "published":
        return read_published(flag, text)[2]
    return text if kind == "file" else ""


def may_have_weights(flag: str, text: str) -> bool:
    """Returns whether a network of one's own may come with weights: a function's may.

    Example:
        >>> [may_have_weights("model", t) for t in ("resnet18", "keras:VGG16", "a.h5")]
        [False, False, True]
    """
    return bool(file_of(flag, text)) or kind_of(text) == "function"


def check_named_teacher(text: str) -> None:
    """Raises `UserError` if a teacher is only the name of a network of the library."""
    if text in MODELS and not os.path.exists(text):
        raise UserError(
            f"--teacher={text} is a network without weights: name a run folder, or a "
            f"file of PyTorch weights, --teacher='{text}?weights=PATH'."
        )


def check_file(flag: str, text: str) -> None:
    """Raises `UserError` if the file that a network is read from is missing."""
    path = file_of(flag, text)
    if path and not os.path.isfile(path):
        raise UserError(f"No model file at {path!r}, which --{flag}={text} reads.")


def check_weights(path: str) -> None:
    """Raises `UserError` if the file of --init_weights is missing."""
    if path and not os.path.isfile(path):
        raise UserError(
            f"No file of PyTorch weights at {path!r}, which --init_weights names: "
            "check the path."
        )


def check_settings(config: typing.Any, changed: typing.Collection[str]) -> None:
    """Raises `UserError` for settings that the kind of --model does not read.

    Args:
        config: `Config`.
        changed: names of the settings that are not at their defaults.
    """
    model = config.model
    if kind_of(model) == "published":
        raise UserError(
            f"--model={model} names weights, which a --teacher takes: a student is "
            f"--model={model.partition('?')[0]}, with --stem and --width, and "
            "--init_weights for a file of weights to start from."
        )
    if kind_of(model) == "name":
        if config.taps:
            raise UserError(
                f"--taps={','.join(config.taps)} places exits on a network of your "
                f"own, --model={model} is the library's: use --exits."
            )
        if config.exit_head == "auto":
            raise UserError(
                f"--exit_head=auto is for --taps, --model={model} is the library's: "
                "name one kind of head."
            )
        return
    if config.init_weights:
        raise UserError(
            f"--init_weights={config.init_weights} is for the library's networks, "
            f"--model={model} is your own: start from a file that holds both, or from "
            "keras:NAME?weights=PATH."
        )
    for name in REGISTRY_ONLY:
        if name in changed:
            instead = ", and name layers in --taps" if name == "exits" else ""
            raise UserError(
                f"--{name} shapes the library's networks, --model={model} is your own: "
                f"leave it at its default{instead}."
            )
    if "exit_head" in changed and not config.taps:
        raise UserError(
            f"--exit_head={config.exit_head} needs --taps, which is empty: "
            f"--model={model} has no exit but its end."
        )
    if config.exit_head == "stage":
        raise UserError(
            "--exit_head=stage copies stages of the library's networks, "
            f"--model={model} is your own: take another, such as separable."
        )
