"""A whole run from its configuration: data, networks, training, result."""

import dataclasses
import pathlib
import time

import keras
import tensorflow as tf

from tf_mskd import config as configs
from tf_mskd import ensemble as ensembles
from tf_mskd import models, registry, schedules
from tf_mskd.callbacks import ExitPhases
from tf_mskd.callbacks.best_student import BestStudent
from tf_mskd.callbacks.progress import Progress
from tf_mskd.data import augment, pipeline, sources, splits
from tf_mskd.distiller import Distiller
from tf_mskd.distribution import create_strategy
from tf_mskd.errors import UserError
from tf_mskd.evaluation import Evaluator, validation_logs
from tf_mskd.flags import read_flagfile
from tf_mskd.optimizers import SGD
from tf_mskd.run_folder import RunFolder
from tf_mskd.saving import load_model, save_model
from tf_mskd.trainer import Trainer

# what a run done first takes over from the run that needs it
HANDED_DOWN = ("data_dir", "strategy", "num_devices", "tensorboard")


def run(config):
    """Trains what `config` says, or goes on, or says that it is finished.

    The runs of `--teacher_flagfile` and `--init_flagfile` are done first, each in a run
    folder of its own, or reused if they are finished.

    Args:
        config: `Config` with `run_dir`.

    Returns:
        dict, the content of result.json.

    Raises:
        UserError: for any mistake in the configuration, the data or the folder.
    """
    folder = RunFolder(config)
    result = folder.result()
    if result:
        print(f"{folder.path} is finished: {summary(result)}")
        return result
    teacher_path = _run_first(config, "teacher") or config.teacher
    init_path = _run_first(config, "init")
    print(f"run {folder.path}")
    strategy = create_strategy(config.strategy, config.num_devices)  # before other TF
    _set_up(config)
    data = Data(config)
    with strategy.scope():
        distiller = build_distiller(config, data.source, teacher_path, init_path)
        _compile(distiller, config, data.steps_per_epoch)
    test = Evaluator(strategy, data.test_stream())
    _report_teacher(distiller, test)
    start = time.monotonic()
    history = _train(distiller, strategy, data, config, folder)
    result = _measure(distiller, strategy, data, test, config, folder)
    result["seconds"] = round(sum(epoch["seconds"] for epoch in history), 1)
    result["seconds_this_start"] = round(time.monotonic() - start, 1)
    save_model(distiller.student, folder.student)
    folder.write_result(result)
    print(f"{folder.path} is finished: {summary(result)}")
    return result


class Data:
    """The images of a run, split, and the streams over them.

    Args:
        config: `Config`.
    """

    def __init__(self, config):
        self.config = config
        self.source = sources.load_source(
            config.dataset, config.data_dir or None, config.image_size or None
        )
        self.train_ids, self.validation_ids = splits.split_ids(
            self.source.train.labels,
            validation_fraction=config.validation_fraction,
            train_fraction=config.train_fraction,
            seed=config.seed,
        )
        self.steps_per_epoch = pipeline.steps_per_epoch(
            self.train_ids, config.batch_size
        )
        self._augment = augment.make_augment(
            config.augment,
            crop_padding=config.crop_padding,
            rotation_degrees=config.rotation_degrees,
            cutout_size=config.cutout_size,
        )

    def train_stream(self, start_step):
        """Batches from the global step on, to the end of the run."""
        return pipeline.train_stream(
            self.source.train,
            self.train_ids,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            augment=self._augment,
            start_step=start_step,
            num_steps=self.steps_per_epoch * self.config.epochs,
        )

    def validation_stream(self):
        """The held-out training images, or None without a validation split."""
        if not len(self.validation_ids):
            return None
        return pipeline.eval_stream(
            self.source.train,
            self.validation_ids,
            batch_size=self.config.eval_batch_size,
        )

    def test_stream(self):
        """The test images."""
        return pipeline.eval_stream(
            self.source.test, batch_size=self.config.eval_batch_size
        )


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


def build_method(config):
    """Creates the method that `config` names, with its arguments."""
    defaults = registry.method_defaults(config.method)
    arguments = configs.arguments(config.method_args, defaults, "method_args")
    if config.exit_map:
        arguments["exit_map"] = config.exit_map
    return registry.create_method(config.method, **arguments)


def build_distiller(config, source, teacher_path="", init_path=""):
    """Builds student, teacher and method; call it under the strategy's scope.

    Args:
        config: `Config`.
        source: see `build_student`.
        teacher_path: str or path of the trained teacher, or "" for none.
        init_path: str or path of the model whose weights the student starts from.

    Returns:
        `Distiller`, not compiled.
    """
    synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
    student = build_student(config, source, synchronized)
    if init_path:
        given = copy_weights(load_model(init_path), student)
        if config.freeze == "backbone":
            for layer in given:
                layer.trainable = False
    method = build_method(config)
    if method.needs_teacher and not teacher_path:
        raise UserError(
            f"--method={config.method} needs a teacher: give --teacher_flagfile or "
            "--teacher."
        )
    teacher = load_model(teacher_path) if teacher_path else None
    return Distiller(
        student,
        teacher,
        method,
        phases=config.phases,
        term_weights=configs.pairs("term_weights", config.term_weights),
        exit_weights=configs.pairs("exit_weights", config.exit_weights),
        ensemble=config.ensemble,
    )


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


def summary(result):
    """Says a result in one line."""
    test = result["test"]
    return "test " + ", ".join(f"{name} {value:.2f} %" for name, value in test.items())


def _compile(distiller, config, steps_per_epoch):
    distiller.compile(make_optimizer(config, steps_per_epoch), jit_compile=False)
    distiller.optimizer.build(distiller.trainable_variables)


def _run_first(config, role):
    flagfile = getattr(config, f"{role}_flagfile")
    if not flagfile:
        return ""
    name = pathlib.Path(flagfile).stem
    beside = pathlib.Path(config.run_dir).parent / name
    folder = getattr(config, f"{role}_run_dir") or str(beside)
    handed_down = {name: getattr(config, name) for name in HANDED_DOWN}
    run(dataclasses.replace(read_flagfile(flagfile), run_dir=folder, **handed_down))
    return folder


def _set_up(config):
    keras.utils.clear_session()
    keras.config.set_dtype_policy(config.dtype_policy)
    keras.utils.set_random_seed(config.seed)
    tf.get_logger().setLevel("ERROR")  # it warns of one tracing per network
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def _report_teacher(distiller, test):
    if distiller.teacher is None:
        return
    logits, labels = test.logits(distiller.teacher)
    table = ensembles.accuracies(logits, labels)
    exits = ", ".join(f"{name} {table[name]:.2f} %" for name in logits)
    print(f"teacher {distiller.teacher.name}, on the test split: {exits}")


def _train(distiller, strategy, data, config, folder):
    monitor = f"val_mean_{config.ensemble}_accuracy"
    callbacks = [Progress()]
    if config.phases == "progressive":
        lengths = configs.numbers("phase_epochs", config.phase_epochs)
        schedules.phase_ends(config.epochs, len(distiller.exits), lengths)
        callbacks.append(ExitPhases(config.epochs, lengths))
    if config.tensorboard:
        callbacks.append(
            keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False)
        )
    validate, stream = None, data.validation_stream()
    if stream is not None:
        evaluator = Evaluator(strategy, stream)

        def validate():
            network = distiller.evaluation_network()
            return validation_logs(*evaluator.logits(network))

        callbacks.append(BestStudent(folder.student_best, monitor))
    trainer = Trainer(
        distiller,
        strategy,
        data.train_stream,
        steps_per_epoch=data.steps_per_epoch,
        epochs=config.epochs,
        states=folder.states,
        callbacks=callbacks,
        validate=validate,
        on_epoch=folder.write_history,
        steps_per_call=config.steps_per_call,
        checkpoint_minutes=config.checkpoint_minutes,
    )
    return trainer.run()


def _measure(distiller, strategy, data, test, config, folder):
    student = distiller.student
    logits, labels = test.logits(student)
    weights, validation = None, data.validation_stream()
    result = {"test": {}}
    if validation is not None:
        held_out = Evaluator(strategy, validation).logits(student)
        weights = ensembles.fit_weights(*held_out)
        result["validation"] = ensembles.accuracies(*held_out, weights)
        result["fitted_weights"] = weights
    result["test"] = test_table(logits, labels, config.ensemble, weights)
    if folder.student_best.exists():
        best, labels = test.logits(load_model(folder.student_best))
        result["test_best"] = test_table(best, labels, config.ensemble)
    result["params"] = student.count_params()
    result["macs"] = {n: models.count_macs(student, n) for n in distiller.exits}
    result["macs"]["ensemble"] = models.count_macs(student)
    teacher = distiller.teacher.name if distiller.teacher else None
    result.update(model=config.model, teacher=teacher, method=config.method)
    result.update(phases=config.phases, seed=config.seed, epochs=config.epochs)
    result["train_examples"] = len(data.train_ids)
    return result


def test_table(logits, labels, kind, weights=None):
    """Accuracies in percent: exits, "ensemble" (by `kind`), and the other votes."""
    table = ensembles.accuracies(logits, labels, weights)
    exits = {name: table.pop(name) for name in logits}
    return {**exits, "ensemble": table[f"mean_{kind}"], **table}
