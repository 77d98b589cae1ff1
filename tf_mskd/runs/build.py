"""Networks, method, Distiller and optimizer from a configuration."""

import tensorflow as tf

from tf_mskd import models
from tf_mskd.methods.common.create import create_method, method_defaults
from tf_mskd.models.saving import load_model
from tf_mskd.runs import config as configs
from tf_mskd.runs.flags import read_flagfile
from tf_mskd.training import schedules
from tf_mskd.training.distiller import Distiller
from tf_mskd.training.optimizers import SGD
from tf_mskd.utils.errors import UserError


def build_student(config, source, synchronized_bn=False):
    """Creates the network that `config` trains, for the classes and images of `source`.

    Args:
        config: `Config`.
        source: `data.sources.Source`, or anything with its `num_classes`,
            `image_shape`, `mean` and `std`.
        synchronized_bn: bool, batch statistics over all replicas.

    Returns:
        functional Keras model with named exits.
    """
    exits = config.exits
    if exits not in ("all", "last"):
        exits = configs.numbers("exits", exits)
    return models.create_model(
        config.model,
        source.num_classes,
        aux_heads=build_method(config).aux_heads,
        exits=exits,
        exit_head=config.exit_head,
        input_shape=source.image_shape,
        width=config.width,
        attention=config.attention,
        dropout=config.dropout,
        vgg_taps=configs.numbers("vgg_taps", config.vgg_taps),
        mean=source.mean,
        std=source.std,
        synchronized_bn=synchronized_bn,
    )


def build_method(config, num_examples=0):
    """Creates the method that `config` names, with its arguments.

    Args:
        config: `Config`.
        num_examples: int, size of the training split, for methods that keep something
            for each example.
    """
    defaults = method_defaults(config.method)
    arguments = configs.arguments(config.method_args, defaults, "method_args")
    if config.exit_map:
        arguments["exit_map"] = config.exit_map
    if "num_examples" in defaults:
        arguments.setdefault("num_examples", num_examples)
    return create_method(config.method, **arguments)


def build_distiller(config, source, teacher=None, init=None, method=None):
    """Builds student and method and joins them; call it under the strategy's scope.

    Args:
        config: `Config`.
        source: see `build_student`.
        teacher: model with named exits, or None.
        init: model whose weights the student starts from, or None.
        method: `Method` of `build_method`, or None to make it here.

    Returns:
        `Distiller`, not compiled.

    Raises:
        UserError: if the parts do not fit together.
    """
    synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
    student = build_student(config, source, synchronized)
    if init is not None:
        given = copy_weights(init, student)
        if config.freeze == "backbone":
            for layer in given:
                layer.trainable = False
    method = method or build_method(config)
    if method.needs_teacher and teacher is None:
        raise UserError(
            f"--method={config.method} needs a teacher: give --teacher_flagfile or "
            "--teacher."
        )
    return Distiller(
        student,
        teacher,
        method,
        phases=config.phases,
        term_weights=configs.pairs("term_weights", config.term_weights),
        exit_weights=configs.pairs("exit_weights", config.exit_weights),
        ensemble=config.ensemble,
    )


def build_peer(config, source):
    """The untrained network that `--untrained_teacher` asks for; under the scope."""
    synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return build_student(read_flagfile(config.teacher_flagfile), source, synchronized)


def check_run(config, source, steps_per_epoch, num_examples=0):
    """Builds the whole run untrained: a mistake shows before a teacher trains for days.

    Args:
        config: `Config`.
        source: see `build_student`.
        steps_per_epoch: int > 0.
        num_examples: see `build_method`.

    Returns:
        `Distiller`, compiled, with untrained networks in place of flagfiles' results.

    Raises:
        UserError: for whatever would stop the run later.
    """
    teacher, init = None, None
    if config.teacher_flagfile:
        teacher = build_student(read_flagfile(config.teacher_flagfile), source)
    elif config.teacher:
        teacher = load_model(config.teacher)
    if config.init_flagfile:
        init = build_student(read_flagfile(config.init_flagfile), source)
    method = build_method(config, num_examples)
    if config.untrained_teacher and not method.trains_teacher:
        raise UserError(
            "--untrained_teacher gives an untrained teacher, which "
            f"--method={config.method} does not train: drop the flag, or take a method "
            "such as dml."
        )
    distiller = build_distiller(config, source, teacher, init, method)
    phase_lengths(config, distiller.exits)
    compile_distiller(distiller, config, steps_per_epoch)
    return distiller


def phase_lengths(config, exits):
    """Returns the epochs of each phase, checked against the run; () for equal ones."""
    lengths = configs.numbers("phase_epochs", config.phase_epochs)
    if config.phases == "progressive":
        schedules.phase_ends(config.epochs, len(exits), lengths)
    return lengths


def copy_weights(source, target):
    """Copies weights by layer name from one model to another.

    Args:
        source: model whose layers with weights must all be in `target`.
        target: model that gets the values; layers only it has keep theirs.

    Returns:
        list of the layers of `target` that got weights.

    Raises:
        UserError: if a layer is missing in `target` or has other shapes.
    """
    layers = {layer.name: layer for layer in target.layers}
    given = []
    for layer in source.layers:
        if not layer.weights:
            continue
        mate = layers.get(layer.name)
        shapes = [tuple(w.shape) for w in layer.weights]
        if mate is None or [tuple(w.shape) for w in mate.weights] != shapes:
            raise UserError(
                f"The starting network {source.name!r} does not fit {target.name!r}: "
                f"layer {layer.name!r} with shapes {shapes} has no match. Use the same "
                "--model, --width and --vgg_taps in both flagfiles."
            )
        mate.set_weights(layer.get_weights())
        given.append(mate)
    return given


def make_optimizer(config, steps_per_epoch):
    """Creates the SGD and its learning-rate schedule."""
    rate = schedules.learning_rate(
        config.lr_schedule,
        config.lr,
        epochs=config.epochs,
        steps_per_epoch=steps_per_epoch,
        drops=configs.numbers("lr_drops", config.lr_drops),
        decay=config.lr_decay,
        warmup_epochs=config.warmup_epochs,
    )
    return SGD(rate, config.momentum, config.nesterov, config.l2)


def compile_distiller(distiller, config, steps_per_epoch):
    """Compiles a distiller and builds its optimizer: a state can be restored."""
    distiller.compile(make_optimizer(config, steps_per_epoch), jit_compile=False)
    distiller.optimizer.build(distiller.trainable_variables)
