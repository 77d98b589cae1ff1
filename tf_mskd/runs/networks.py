"""The networks of your own that --model and --teacher name."""

import contextlib
import hashlib
import importlib
import os
import sys
import typing

import keras

from tf_mskd.models import create_model, load_torch_weights
from tf_mskd.models.applications import application_arguments, create_application
from tf_mskd.models.plain import as_functional
from tf_mskd.models.saving import fingerprint, load_model, read_model
from tf_mskd.runs import parsers
from tf_mskd.runs.config import Config
from tf_mskd.runs.flags import read_flagfile
from tf_mskd.runs.own_model import file_of, kind_of, read_application, read_published
from tf_mskd.runs.run_folder import RunFolder
from tf_mskd.tasks import Task, create_task
from tf_mskd.utils.channel_statistics import CHANNEL_STATISTICS
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.private import fresh_names
from tf_mskd.utils.run_paths import RunPaths


def load_network(
    text: str, source: typing.Any, task: str | Task = "classification"
) -> keras.Model:
    """Reads a trained network: a run folder's, a file's, or one of the user's own.

    Args:
        text: str, the value of --teacher, or path of a run folder.
        source: see `build.build_student`.
        task: the task that it answers, or its name.

    Returns:
        functional Keras model.

    Raises:
        UserError: if there is no such network.
    """
    if kind_of(text) in ("name", "file"):
        import_layers(text)
        return load_model(text, task)
    if kind_of(text) == "published":
        return _published(text, source, task)
    if kind_of(text) == "keras" and not read_application("teacher", text)[2]:
        raise UserError(
            f"--teacher={text} has no weights: name a file of them, weights=PATH."
        )
    width = create_task(task).num_outputs(source.num_classes)
    with fresh_names():
        return network_of("teacher", text, width, source.image_shape, include_top=True)


def _published(text, source, task):
    """A network of the library with published weights, and their scaling of images."""
    name, arguments, path = read_published("teacher", text)
    mean, std = published_scaling(arguments.get("stem", "small"), source)
    model = create_model(
        name,
        source.num_classes,
        input_shape=source.image_shape,
        mean=mean,
        std=std,
        task=task,
        **arguments,
    )
    return load_torch_weights(model, path)


def published_scaling(stem: str, source: typing.Any) -> tuple[typing.Any, typing.Any]:
    """Returns the mean and the deviation that a network's published weights expect.

    Args:
        stem: str, with that of ImageNet they are those of ImageNet.
        source: see `build.build_student`; the statistics of the data hold for other
            stems, and for images that are not of three channels.

    Returns:
        (mean, std), each a tuple of floats for each channel, of the [0, 1] range, or
        None.

    Example:
        >>> from types import SimpleNamespace
        >>> published_scaling("imagenet", SimpleNamespace(image_shape=(9, 9, 3)))[0]
        (0.485, 0.456, 0.406)
    """
    if stem == "imagenet" and source.image_shape[-1] == 3:
        return CHANNEL_STATISTICS["imagenet2012"]
    return source.mean, source.std


def load_once(
    folder: RunFolder, role: str, path: str, source: typing.Any, task: Task
) -> keras.Model | None:
    """Reads the network that a run needs; refuses another than it was started with.

    Args:
        folder: `RunFolder` of the run.
        role: str, "teacher" or "init".
        path: see `load_network`; "" for none.
        source, task: see `load_network`.

    Returns:
        functional Keras model, or None without a path.

    Raises:
        UserError: if there is no such network, or it is another one now.
    """
    if not path:
        return None
    model = load_network(path, source, task)
    folder.check_fingerprint(role, path, fingerprint(model))
    return model


def remember_files(folder: RunFolder, config: Config) -> None:
    """Notes the files that a student's weights come from; refuses others later.

    Args:
        folder: `RunFolder` of the run.
        config: `Config`, with `model` and `init_weights`.
    """
    paths = {
        "model": file_of("model", config.model),
        "weights file": config.init_weights,
    }
    for role, path in paths.items():
        if path:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            folder.check_fingerprint(role, path, digest)


def import_layers(text: str) -> None:
    """Imports the module of the layers that a file may hold, where a run tells it.

    Where it cannot be imported, a line says so: the file may do without it.

    Args:
        text: str, path of a run folder, of a file in one, or a --model.
    """
    seen = set()
    while text not in seen and kind_of(text) in ("name", "file"):
        seen.add(text)
        folder = os.path.dirname(text) if kind_of(text) == "file" else text
        flags = RunPaths(folder).flags
        with contextlib.suppress(UserError):  # of a run of another version
            text = read_flagfile(str(flags)).model if flags.is_file() else text
    if kind_of(text) == "function":
        try:
            _module("model", text)
        except UserError as error:
            print(f"Layers of your own may be missing: {error}")


def network_of(
    flag: str,
    text: str,
    num_classes: int,
    input_shape: tuple[int, int, int],
    include_top: bool,
) -> keras.Model:
    """Makes the network that a flag names: a file's, a function's or an application's.

    Args:
        flag: str, "model" or "teacher", for errors.
        text: str, the flag's value.
        num_classes: int, width of an end in logits.
        input_shape: (int, int, int), height, width, channels of the images.
        include_top: bool, whether a network of `keras.applications` ends in logits.

    Returns:
        functional Keras model.

    Raises:
        UserError: if there is no such network.
    """
    kind = kind_of(text)
    if kind == "file":
        import_layers(text)
        return read_model(text)
    if kind == "function":
        return _from_function(flag, text, num_classes, tuple(input_shape))
    name, given, weights = read_application(flag, text)
    arguments = {
        "include_top": include_top,
        **parsers.typed(flag, given, application_arguments(name)),
    }
    return create_application(
        name, num_classes, input_shape, weights=weights, **arguments
    )


def _from_function(flag, text, num_classes, input_shape):
    module, name = _module(flag, text), text.partition(":")[2]
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n in vars(module) if callable(getattr(module, n))]
        raise unknown_name(f"function of {module.__name__}", name, known)
    try:
        made = function(num_classes=num_classes, input_shape=input_shape)
    except UserError:
        raise
    except Exception as error:  # of the user's own code
        raise UserError(
            f"--{flag}={text} failed when it was called with "
            f"num_classes={num_classes}, input_shape={input_shape}: {reason_of(error)}"
        ) from error
    network = as_functional(made)
    if network is None:
        raise UserError(
            f"--{flag}={text} must return a functional Keras model, got "
            f"{type(made).__name__}: return keras.Model(x, y) with x = keras.Input."
        )
    return network


def _module(flag, text):
    name = text.partition(":")[0]
    if os.getcwd() not in sys.path:  # which `python -m` puts there, a script does not
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except Exception as error:  # of the user's own code
        raise UserError(
            f"--{flag}={text}: module {name!r} cannot be imported from the current "
            f"folder or the installed packages: {reason_of(error)}"
        ) from error


def reason_of(error: Exception) -> str:
    """Returns an error of foreign code as part of one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
