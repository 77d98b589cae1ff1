"""The networks of your own that --model and --teacher name."""

import contextlib
import importlib
import os
import sys
import tempfile
import typing

import keras

from tf_mskd import models
from tf_mskd.models.applications import application_arguments, create_application
from tf_mskd.models.graph import output_tensors, replay
from tf_mskd.models.plain import as_functional
from tf_mskd.models.probabilities import kind_of_output
from tf_mskd.models.saving import load_model, read_model, save_model
from tf_mskd.runs import parsers
from tf_mskd.runs.config import Config
from tf_mskd.runs.flags import read_flagfile
from tf_mskd.runs.own_model import kind_of, read_application
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.private import all_layers, fresh_names
from tf_mskd.utils.run_paths import RunPaths


def own_student(
    config: Config, source: typing.Any, synchronized_bn: bool = False
) -> keras.Model:
    """Creates the student of a --model of the user's own.

    Args:
        config: `Config`, with `taps` and `exit_head`.
        source: see `build.build_student`.
        synchronized_bn: bool, batch statistics over all replicas.

    Returns:
        functional Keras model with a dict of exits.

    Raises:
        UserError: if there is no such network, or it does not fit the data.
    """
    with fresh_names():  # they lead from one build's weights to another's
        network = _network("model", config.model, source, include_top=False)
        _check_policy(network, config)
        network = _for_images(network, config.model, source.image_shape)
        if models.exit_names(network):
            _check_exits(network, config, source.num_classes)
        else:
            _check_end(network, config.model, source.num_classes)
            network = models.add_exits(
                network, config.taps, source.num_classes, exit_head=config.exit_head
            )
    for layer in all_layers(network) if synchronized_bn else ():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
    return network


def load_network(text: str, source: typing.Any) -> keras.Model:
    """Reads a trained network: a run folder's, a file's, or one of the user's own.

    Args:
        text: str, the value of --teacher, or path of a run folder.
        source: see `build.build_student`.

    Returns:
        functional Keras model.

    Raises:
        UserError: if there is no such network.
    """
    if kind_of(text) in ("name", "file"):
        import_layers(text)
        return load_model(text)
    if kind_of(text) == "keras" and not read_application("teacher", text)[2]:
        raise UserError(
            f"--teacher={text} has no weights: name a file of them, weights=PATH."
        )
    with fresh_names():
        return _network("teacher", text, source, include_top=True)


def import_layers(text: str) -> None:
    """Imports the module of the layers that a file may hold, where a run tells it.

    Args:
        text: str, path of a run folder, of a file in one, or a --model.

    Raises:
        UserError: if there is no such module.
    """
    seen = set()
    while text not in seen and kind_of(text) in ("name", "file"):
        seen.add(text)
        folder = os.path.dirname(text) if kind_of(text) == "file" else text
        flags = RunPaths(folder).flags
        with contextlib.suppress(UserError):  # of a run of another version
            text = read_flagfile(str(flags)).model if flags.is_file() else text
    if kind_of(text) == "function":
        _module("model", text)


def check_student(network: keras.Model, model: str) -> None:
    """Raises `UserError` for what would stop a run at its end.

    Args:
        network: of `own_student`.
        model: str, the value of --model.
    """
    models.count_macs(network)
    if kind_of(model) == "function":
        _check_readable(network, model)


def _network(flag, text, source, include_top):
    kind = kind_of(text)
    if kind == "file":
        import_layers(text)
        return read_model(text)
    if kind == "function":
        return _from_function(flag, text, source)
    name, given, weights = read_application(flag, text)
    arguments = {
        "include_top": include_top,
        **parsers.typed(flag, given, application_arguments(name)),
    }
    return create_application(
        name, source.num_classes, source.image_shape, weights=weights, **arguments
    )


def _from_function(flag, text, source):
    module, name = _module(flag, text), text.partition(":")[2]
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n in vars(module) if callable(getattr(module, n))]
        raise unknown_name(f"function of {module.__name__}", name, known)
    try:
        made = function(num_classes=source.num_classes, input_shape=source.image_shape)
    except UserError:
        raise
    except Exception as error:  # of the user's own code
        raise UserError(
            f"--{flag}={text} failed when it was called with "
            f"num_classes={source.num_classes}, input_shape={source.image_shape}: "
            f"{_text_of(error)}"
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
            f"folder or the installed packages: {_text_of(error)}"
        ) from error


def _text_of(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _check_policy(network, config):
    """A file's layers keep their precision, whatever the policy of the run."""
    policies = {layer.dtype_policy.name for layer in all_layers(network)}
    if config.dtype_policy not in policies:
        raise UserError(
            f"--dtype_policy={config.dtype_policy} does not change layers that are "
            f"built, those of --model={config.model} are "
            f"{', '.join(sorted(policies))}: set one of these, or build the network "
            "with yours."
        )


def _for_images(network, model, shape):
    """The network on images of the data's size, where it takes any size."""
    reads = [tuple(tensor.shape[1:]) for tensor in network.inputs]
    takes = len(reads) == 1 and len(reads[0]) == len(shape)
    if not takes or any(
        n not in (None, m) for n, m in zip(reads[0], shape, strict=True)
    ):
        raise UserError(
            f"--model={model} reads {', '.join(map(str, reads))}, the data have images "
            f"{tuple(shape)}: take data of that shape; --image_size sets their side."
        )
    if None not in reads[0]:
        return network
    image = keras.Input(shape, dtype=network.inputs[0].dtype, name="image")
    made = replay(network.outputs, {id(network.inputs[0]): image})
    outputs = keras.tree.pack_sequence_as(network.output, made)
    return keras.Model(image, outputs, name=network.name)


def _check_readable(network, model):
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = os.path.join(folder, "student.keras")
            save_model(network, path)
            load_model(path)
        except Exception as error:  # of the layers' own code, when it writes or reads
            raise UserError(
                f"The network of --model={model} cannot be read back from a .keras "
                f"file: {_text_of(error)} Register its layers, with "
                "keras.saving.register_keras_serializable, and give them get_config."
            ) from error


def _check_exits(network, config, num_classes):
    """A network that has exits already keeps them."""
    if config.taps:
        raise UserError(
            f"--taps={','.join(config.taps)} places exits, --model={config.model} has "
            f"its own, {', '.join(models.exit_names(network))}: leave --taps empty."
        )
    last = output_tensors(network)[models.exit_names(network)[-1]]
    if last.shape[-1] != num_classes:
        raise UserError(
            f"--model={config.model} has exits for {last.shape[-1]} classes, the data "
            f"have {num_classes}: take the network without its exits."
        )


def _check_end(network, model, num_classes):
    """Refuses probabilities of other classes, which a further layer would read."""
    end = network.outputs[0]
    if len(end.shape) != 2 or end.shape[-1] in (None, num_classes):
        return
    kind = kind_of_output(network, end)
    if kind == "softmax":
        raise UserError(
            f"--model={model} ends in probabilities of {end.shape[-1]} classes, the "
            f"data have {num_classes}: take the network without its last layer."
        )
