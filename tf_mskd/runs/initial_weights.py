"""The weights that a run starts from: another run's network's, or a file's."""

from collections.abc import Collection

import keras

from tf_mskd.models.graph import exit_names, output_tensors
from tf_mskd.models.torch_weights import init_torch_weights
from tf_mskd.runs.config import Config
from tf_mskd.runs.stages import required_config
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.private import node_of


def init_task_of(config: Config) -> str:
    """Returns the task of the run that initialises this one's network, or ""."""
    first = required_config(config, "init")
    return first.task if first else ""


def start_from(
    init: keras.Model, student: keras.Model, config: Config, task: str
) -> None:
    """Gives a student the weights of the network of `--init_flagfile`; may freeze them.

    Where the two runs have different tasks the layers that make the answers stay as
    they are, even those of equal shapes: a class is no bit of a code. A line says so.

    Args:
        init: the network of `--init_flagfile` or `--init_stage`.
        student: gets the values.
        config: `Config` of the student's run.
        task: str, name of the task that `init` answers.

    Raises:
        UserError: see `copy_weights`.
    """
    fresh = set()
    if task != config.task:
        fresh = answering_layers(init) | answering_layers(student)
        print(
            f"{init.name} of --task={task} gives --task={config.task} all its weights "
            f"but those of {', '.join(sorted(fresh))}, which start anew."
        )
    _freeze(copy_weights(init, student, fresh), config)


def start_from_file(student: keras.Model, config: Config) -> None:
    """Gives a student the PyTorch weights of `--init_weights`; may freeze them.

    A line names the exits that keep their random start: all that the file lacks, or has
    for other classes.

    Args:
        student: network of the library, gets the values.
        config: `Config` of the student's run.

    Raises:
        UserError: if the file is not of this network.
    """
    is_other_task = config.task != "classification"
    given = init_torch_weights(student, config.init_weights, new_exit=is_other_task)
    outputs, names = output_tensors(student), {layer.name for layer in given}
    fresh = [n for n in exit_names(outputs) if _answering(outputs[n]) not in names]
    but = f" but for {', '.join(fresh)}, which start anew" if fresh else ""
    print(f"{student.name} starts from {config.init_weights}{but}.")
    _freeze(given, config)


def _freeze(layers, config):
    if config.freeze == "backbone":
        for layer in layers:
            layer.trainable = False


def answering_layers(model: keras.Model) -> set[str]:
    """Names of the last layer with weights before each exit.

    Args:
        model: functional model with named exits.

    Example:
        >>> from tf_mskd.models import create_model
        >>> net = create_model("resnet10", 10, exits=[1, 4], width=0.1)
        >>> sorted(answering_layers(net))
        ['exit_1', 'exit_4']
    """
    outputs = output_tensors(model)
    return {_answering(outputs[name]) for name in exit_names(outputs)}


def _answering(tensor):
    node = node_of(tensor)
    while node.input_tensors and not getattr(node.operation, "weights", None):
        node = node_of(node.input_tensors[0])
    return node.operation.name


def copy_weights(
    source: keras.Model, target: keras.Model, fresh: Collection[str] = ()
) -> list[keras.Layer]:
    """Copies weights by layer name from one model to another.

    Args:
        source: model whose layers with weights must all be in `target`.
        target: model that gets the values; layers only it has keep theirs.
        fresh: names of layers to leave out.

    Returns:
        list of the layers of `target` that got weights.

    Raises:
        UserError: if a layer is missing in `target` or has other shapes.
    """
    layers = {layer.name: layer for layer in target.layers}
    given = []
    for layer in source.layers:
        if not layer.weights or layer.name in fresh:
            continue
        mate = layers.get(layer.name)
        shapes = [tuple(w.shape) for w in layer.weights]
        if mate is None or [tuple(w.shape) for w in mate.weights] != shapes:
            raise UserError(
                f"The starting network {source.name!r} does not fit {target.name!r}: "
                f"layer {layer.name!r} with shapes {shapes} has no match. Use the same "
                "--model, --taps, --stem, --width, --vgg_taps and --task_args in "
                "both flagfiles."
            )
        mate.set_weights(layer.get_weights())
        given.append(mate)
    return given
