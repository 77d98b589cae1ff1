"""Networks, method, Distiller and optimizer from a configuration."""

import contextlib
import itertools
import types
import typing
from collections.abc import Sequence

import keras

from tf_mskd import models
from tf_mskd.methods.common.create import create_method, method_defaults
from tf_mskd.methods.common.method import Method
from tf_mskd.runs import networks, own_model, own_student, parsers
from tf_mskd.runs.config import Config
from tf_mskd.runs.flags import read_flagfile
from tf_mskd.runs.initial_weights import init_task_of, start_from, start_from_file
from tf_mskd.runs.optimizer_settings import check_training
from tf_mskd.runs.stages import required_config
from tf_mskd.runs.task import build_task
from tf_mskd.training import schedules
from tf_mskd.training.distiller import Distiller
from tf_mskd.training.label_smoothing import SmoothedCrossEntropy
from tf_mskd.training.optimizers import create_optimizer
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.replicas import num_replicas


def build_student(
    config: Config,
    source: typing.Any,
    aux_heads: Sequence[str] = (),
    synchronized_bn: bool = False,
) -> keras.Model:
    """Creates the network that `config` trains, for the classes and images of `source`.

    The library's, or the user's own.

    Args:
        config: `Config`.
        source: `data.sources.Source`, or anything with its `num_classes`,
            `image_shape`, `mean` and `std`.
        aux_heads: sequence of str, kinds of heads that the method teaches with.
        synchronized_bn: bool, batch statistics over all replicas.

    Returns:
        functional Keras model with named exits.
    """
    if own_model.kind_of(config.model) != "name":
        if aux_heads:
            raise UserError(
                f"--method={config.method} needs auxiliary heads "
                f"({', '.join(aux_heads)}), which the library's networks have alone, "
                f"not --model={config.model}: take another method."
            )
        return own_student.build_own_student(config, source, synchronized_bn)
    mean, std = source.mean, source.std
    if config.init_weights:
        mean, std = networks.published_scaling(config.stem, source)
    return models.create_model(
        config.model,
        source.num_classes,
        aux_heads=aux_heads,
        exits=config.exits,
        exit_head=config.exit_head,
        input_shape=source.image_shape,
        stem=config.stem,
        width=config.width,
        attention=config.attention,
        pyramid_pooling=config.pyramid_pooling,
        dropout=config.dropout,
        vgg_taps=config.vgg_taps,
        mean=mean,
        std=std,
        synchronized_bn=synchronized_bn,
        task=build_task(config),
    )


def build_network(
    config: Config, source: typing.Any, synchronized_bn: bool = False
) -> keras.Model:
    """Creates the network of another run, with the heads of that run's method."""
    aux_heads = build_method(config).aux_heads
    return build_student(config, source, aux_heads, synchronized_bn)


def build_method(config: Config, num_examples: int = 0) -> Method:
    """Creates the method that `config` names, with its arguments.

    Args:
        config: `Config`.
        num_examples: int, size of the training split, for methods that keep something
            for each example.
    """
    defaults = method_defaults(config.method)
    arguments = parsers.typed("method_args", config.method_args, defaults)
    if config.exit_map:
        arguments["exit_map"] = config.exit_map
    if "num_examples" in defaults:
        arguments.setdefault("num_examples", num_examples)
    return create_method(config.method, **arguments)


def build_distiller(
    config: Config,
    source: typing.Any,
    teacher: keras.Model | None = None,
    init: keras.Model | None = None,
    method: Method | None = None,
    init_task: str = "",
) -> Distiller:
    """Builds student and method and joins them; call it under the strategy's scope.

    Args:
        config: `Config`.
        source: see `build_student`.
        teacher: model with named exits, or None.
        init: model whose weights the student starts from, or None.
        method: `Method` of `build_method`, or None to make it here.
        init_task: str, name of the task that `init` answers; empty: that of `config`.

    Returns:
        `Distiller`, not compiled.

    Raises:
        UserError: if the parts do not fit together.
    """
    method = method or build_method(config)
    student = build_student(config, source, method.aux_heads, _several_replicas())
    if init is not None:
        start_from(init, student, config, init_task or config.task)
    if config.init_weights:
        start_from_file(student, config)
    if method.needs_teacher and teacher is None:
        raise UserError(
            f"--method={config.method} needs a teacher: name one with "
            "--teacher_flagfile or --teacher."
        )
    return Distiller(
        student,
        teacher,
        method,
        task=build_task(config),
        phases=config.phases,
        term_weights=config.term_weights,
        exit_weights=config.exit_weights,
        ensemble=config.ensemble,
        teacher_size=config.teacher_size or None,
    )


def build_peer(config: Config, source: typing.Any) -> keras.Model:
    """Creates the untrained network of `--untrained_teacher`; under the scope."""
    peer = read_flagfile(config.teacher_flagfile)
    source = _teacher_source(config, peer, source)
    return build_network(peer, source, _several_replicas())


def teacher_source(config: Config, source: typing.Any) -> typing.Any:
    """Returns the source as --teacher sees it, of --teacher_size."""
    return _resized(source, config.teacher_size)


def _teacher_source(config, of_teacher, source):
    """The source as the teacher's own run sees it: of another image size, maybe."""
    return _resized(source, of_teacher.image_size or config.teacher_size)


def _resized(source, size):
    if not size:
        return source
    shape = (size, size, source.image_shape[-1])
    names = ("num_classes", "mean", "std")
    known = {name: getattr(source, name) for name in names}
    return types.SimpleNamespace(image_shape=shape, **known)


def _several_replicas():
    return num_replicas() > 1


def check_run(
    config: Config, source: typing.Any, steps_per_epoch: int, method: Method
) -> Distiller:
    """Builds a run untrained: a mistake shows before a teacher trains for days.

    Args:
        config: `Config`.
        source: see `build_student`.
        steps_per_epoch: int > 0.
        method: `Method` of `build_method`, which serves this check alone: building it
            gives it weights.

    Returns:
        `Distiller`, compiled, with untrained networks in place of flagfiles' results.

    Raises:
        UserError: for whatever would stop the run later.
    """
    teacher, init = (required_config(config, role) for role in ("teacher", "init"))
    if teacher:
        teacher = build_network(teacher, _teacher_source(config, teacher, source))
    init = build_network(init, source) if init else None
    if config.teacher:
        teacher = networks.load_network(
            config.teacher, teacher_source(config, source), build_task(config)
        )
    if config.untrained_teacher and not method.trains_teacher:
        raise UserError(
            f"--method={config.method} does not train its teacher: drop "
            "--untrained_teacher, or use a method such as dml."
        )
    with contextlib.redirect_stdout(None):  # what is said once, the run itself says
        distiller = build_distiller(
            config, source, teacher, init, method, init_task_of(config)
        )
    if own_model.kind_of(config.model) != "name":
        own_student.check_student(distiller.student, config.model)
    phase_lengths(config, distiller.exits)
    compile_distiller(distiller, config, steps_per_epoch)
    return distiller


def phase_lengths(config: Config, exits: Sequence[str]) -> tuple[int, ...]:
    """Returns the epochs of each phase, checked against the run; () for equal ones."""
    if config.phases == "progressive":
        schedules.phase_ends(config.epochs, len(exits), config.phase_epochs)
    return config.phase_epochs


def make_optimizer(
    config: Config, steps_per_epoch: int, exits: Sequence[str]
) -> keras.optimizers.Optimizer:
    """Creates the optimizer and its learning-rate schedule."""
    return create_optimizer(
        config.optimizer,
        _learning_rate(config, steps_per_epoch, len(exits)),
        momentum=config.momentum,
        nesterov=config.nesterov,
        l2=config.l2,
        weight_decay=config.decoupled_decay,
        ema=config.ema,
        clip_norm=config.clip_norm,
        accumulate_steps=config.accumulate_steps,
    )


def _learning_rate(config, steps_per_epoch, num_phases):
    if config.phase_lr == "restart":
        ends = schedules.phase_ends(config.epochs, num_phases, config.phase_epochs)
        lengths = [end - start for start, end in itertools.pairwise([0, *ends])]
        return schedules.RestartedCosine(
            config.learning_rate,
            [epochs * steps_per_epoch for epochs in lengths],
            int(config.warmup_epochs * steps_per_epoch),
        )
    return schedules.learning_rate(
        config.lr_schedule,
        config.learning_rate,
        epochs=config.epochs,
        steps_per_epoch=steps_per_epoch,
        drops=config.lr_drops,
        decay=config.lr_decay,
        warmup_epochs=config.warmup_epochs,
    )


def compile_distiller(
    distiller: Distiller, config: Config, steps_per_epoch: int
) -> None:
    """Compiles a distiller and builds its optimizer: a checkpoint can be restored.

    Raises:
        UserError: for settings of training that this run does not read.
    """
    weight = distiller.term_weights.get("ce")
    check_training(
        config,
        steps=config.epochs * steps_per_epoch,
        several_devices=_several_replicas(),
        one_class=distiller.task.one_class,
        reads_labels=weight is not None and weight.numpy() > 0,
    )
    loss = None
    if config.label_smoothing:
        loss = SmoothedCrossEntropy(config.label_smoothing)
    optimizer = make_optimizer(config, steps_per_epoch, distiller.exits)
    variables = distiller.trainable_variables
    optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    distiller.compile(optimizer, loss, jit_compile=False)
    distiller.optimizer.build(variables)
