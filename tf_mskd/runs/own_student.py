"""The student of a --model of the user's own: its exits, and whether it fits."""

import os
import tempfile
import typing

import keras

from tf_mskd import models
from tf_mskd.models.graph import output_tensors, replay
from tf_mskd.models.probabilities import kind_of_output
from tf_mskd.models.saving import load_model, save_model
from tf_mskd.runs.config import Config
from tf_mskd.runs.networks import network_of, reason_of
from tf_mskd.runs.own_model import kind_of
from tf_mskd.runs.task import build_task
from tf_mskd.utils.choices import DTYPE_POLICIES
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.private import all_layers, fresh_names


def build_own_student(
    config: Config, source: typing.Any, synchronized_bn: bool = False
) -> keras.Model:
    """Creates the student of a --model of the user's own.

    Args:
        config: `Config`, with `taps`, `exit_head` and `pyramid_pooling`.
        source: see `build.build_student`.
        synchronized_bn: bool, batch statistics over all replicas.

    Returns:
        functional Keras model with a dict of exits.

    Raises:
        UserError: if there is no such network, or it does not fit the data.
    """
    task = build_task(config)
    width = task.num_outputs(source.num_classes)
    with fresh_names():  # they lead from one build's weights to another's
        network = network_of(
            "model", config.model, width, source.image_shape, include_top=False
        )
        _check_policy(network, config)
        network = _for_images(network, config.model, source.image_shape)
        is_frozen = config.freeze == "backbone" and not config.has_init
        if is_frozen:
            network.trainable = False
        if models.exit_names(network):
            _check_exits(network, config, width)
        else:
            _check_end(network, config.model, width, task)
            network = models.add_exits(
                network,
                config.taps,
                source.num_classes,
                exit_head=config.exit_head,
                pyramid_pooling=config.pyramid_pooling,
                task=task,
            )
    if is_frozen and not network.trainable_variables:
        raise UserError(
            f"--freeze=backbone leaves nothing to train of --model={config.model}, "
            "which ends in its answers: take the network without its last layer, or "
            "place exits with --taps."
        )
    for layer in all_layers(network) if synchronized_bn else ():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
    return network


def check_student(network: keras.Model, model: str) -> None:
    """Raises `UserError` for what would stop a run at its end.

    Args:
        network: of `build_own_student`.
        model: str, the value of --model.
    """
    models.count_macs(network)
    if kind_of(model) == "function":
        _check_readable(network, model)


def _check_policy(network, config):
    """A file's layers keep their precision, whatever the policy of the run.

    Inputs and models have none of their own in a file: they get that of the run. Heads
    of networks in mixed precision are float32.
    """
    own = [
        x for x in all_layers(network) if x.weights and not isinstance(x, keras.Model)
    ]
    policies = {layer.dtype_policy.name for layer in own}
    mixed = policies & set(DTYPE_POLICIES) - {"float32"}
    wanted = config.dtype_policy
    if not own or wanted in (mixed or {"float32"}):
        return
    there = ", ".join(sorted(policies))
    raise UserError(
        f"--dtype_policy={wanted} does not change layers that are built, those of "
        f"--model={config.model} are {there}: set --dtype_policy="
        f"{min(mixed, default='float32')}, or build the network with yours."
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
                f"file: {reason_of(error)} Register its layers, with "
                "keras.saving.register_keras_serializable, and give them get_config."
            ) from error


def _check_exits(network, config, width):
    """A network that has exits already keeps them."""
    if config.taps:
        raise UserError(
            f"--taps={','.join(config.taps)} places exits, --model={config.model} has "
            f"its own, {', '.join(models.exit_names(network))}: leave --taps empty."
        )
    if config.pyramid_pooling:
        raise UserError(
            f"--pyramid_pooling stands before a new exit, --model={config.model} has "
            f"its own, {', '.join(models.exit_names(network))}: leave it out."
        )
    last = output_tensors(network)[models.exit_names(network)[-1]]
    if last.shape[-1] != width:
        raise UserError(
            f"--model={config.model} has exits for {last.shape[-1]} classes, the data "
            f"need {width}: take the network without its exits."
        )


def _check_end(network, model, width, task):
    """Refuses probabilities of other classes, which a further layer would read."""
    end = network.outputs[0]
    if len(end.shape) != 2 or end.shape[-1] in (None, width):
        return
    kind = kind_of_output(network, end)
    if kind == task.probabilities:
        raise UserError(
            f"--model={model} ends in probabilities of {end.shape[-1]} classes, the "
            f"data need {width}: take the network without its last layer."
        )
