"""A whole run from its configuration: data, networks, training, result."""

import dataclasses
import functools
import pathlib

import keras
import tensorflow as tf

from tf_mskd import models
from tf_mskd.callbacks import ExitPhases
from tf_mskd.callbacks.best_student import BestStudent
from tf_mskd.callbacks.progress import Progress
from tf_mskd.models import ensemble as ensembles
from tf_mskd.models.saving import fingerprint, load_model, save_model
from tf_mskd.runs import build
from tf_mskd.runs.data import Data
from tf_mskd.runs.flags import read_flagfile
from tf_mskd.runs.run_folder import RunFolder
from tf_mskd.teacher_cache.cached_teacher import CachedTeacher, cached_vectors
from tf_mskd.training.evaluation import Evaluator, validation_logs
from tf_mskd.training.strategies import create_strategy
from tf_mskd.training.term_schedule import TermSchedule
from tf_mskd.training.trainer import Trainer
from tf_mskd.utils.errors import UserError

# what a run done first takes over from the run that needs it
HANDED_DOWN = (
    "data_dir",
    "strategy",
    "num_devices",
    "tensorboard",
    "checkpoint_minutes",
    "checkpoint_steps",
)


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
    with RunFolder(config) as folder:
        result = folder.result()
        if result is None:
            result = _run(config, folder)
        print(f"{folder.path} is finished: {summary(result)}")
        return result


def _run(config, folder):
    strategy = create_strategy(config.strategy, config.num_devices)  # before other TF
    _set_up(config)
    method = build.build_method(config)
    data = Data(config, method)
    examples = _check_run(config, data)
    teacher_path = config.teacher
    if not config.untrained_teacher:
        teacher_path = _run_first(config, "teacher") or config.teacher
    init_path = _run_first(config, "init")
    print(f"run {folder.path}")
    _set_up(config)
    with strategy.scope():
        teacher = _load(folder, "teacher", teacher_path)
        if config.untrained_teacher:
            teacher = build.build_peer(config, data.source)
        init = _load(folder, "init", init_path)
        method = build.build_method(config, examples)
        distiller = build.build_distiller(config, data.source, teacher, init, method)
        build.compile_distiller(distiller, config, data.steps_per_epoch)
    test = Evaluator(strategy, data.test_stream())
    _report_teacher(distiller, test, config.untrained_teacher)
    history = _train(distiller, strategy, data, config, folder)
    result = _measure(distiller, strategy, data, test, config, folder)
    result["seconds"] = round(sum(epoch["seconds"] for epoch in history), 1)
    if distiller.method.trains_teacher:
        table = test_table(*test.logits(distiller.teacher), config.ensemble)
        result["test_teacher"] = table
    if folder.is_chief:
        save_model(distiller.student, folder.student)
        if distiller.method.trains_teacher:
            save_model(distiller.teacher, folder.trained_teacher)
    folder.write_result(result)
    return result


def fill_cache(config):
    """Fills `config.teacher_cache` ahead, all views; trains the teacher if it must.

    Args:
        config: `Config` of a run with `teacher_cache`; the run itself is not done.

    Returns:
        `TeacherCache`.

    Raises:
        UserError: for any mistake in the configuration, the data or the folders.
    """
    if not config.teacher_cache:
        raise UserError("--teacher_cache is empty: say which folder to fill.")
    strategy = create_strategy(config.strategy, config.num_devices)  # before other TF
    _set_up(config)
    data = Data(config, build.build_method(config))
    examples = _check_run(config, data)
    path = _run_first(config, "teacher") or config.teacher
    _set_up(config)
    with strategy.scope():
        teacher = load_model(path) if path else None
        method = build.build_method(config, examples)
        distiller = build.build_distiller(config, data.source, teacher, None, method)
    cached = CachedTeacher(distiller, strategy, data, config)
    for view in range(config.views):
        cached.fill(view)
    return cached.cache


def summary(result):
    """Says a result in one line."""
    test = result["test"]
    return "test " + ", ".join(f"{name} {value:.2f} %" for name, value in test.items())


def _check_run(config, data):
    """Builds the run untrained, see `build`; returns the number of examples."""
    examples = len(data.source.train.labels)
    untrained = build.check_run(config, data.source, data.steps_per_epoch, examples)
    if config.teacher_cache:
        cached_vectors(untrained, config.cache_top_k)
    return examples


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


def _load(folder, role, path):
    if not path:
        return None
    model = load_model(path)
    folder.check_fingerprint(role, path, fingerprint(model))
    return model


def _set_up(config):
    keras.utils.clear_session()
    keras.config.set_dtype_policy(config.dtype_policy)
    keras.utils.set_random_seed(config.seed)
    tf.get_logger().setLevel("ERROR")  # it warns of one tracing per network
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def _report_teacher(distiller, test, fresh):
    if distiller.teacher is None or fresh:
        return
    logits, labels = test.logits(distiller.teacher)
    table = ensembles.accuracies(logits, labels)
    exits = ", ".join(f"{name} {table[name]:.2f} %" for name in logits)
    print(f"teacher {distiller.teacher.name}, on the test split: {exits}")


def _train(distiller, strategy, data, config, folder):
    monitor = f"val_mean_{config.ensemble}_accuracy"
    callbacks = [TermSchedule()]
    if folder.is_chief:
        callbacks.append(Progress())
    if config.phases == "progressive":
        lengths = build.phase_lengths(config, distiller.exits)
        callbacks.append(ExitPhases(config.epochs, lengths))
    if config.tensorboard and folder.is_chief:
        callbacks.append(
            keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False)
        )
    prepare, train_stream = None, data.train_stream
    if config.teacher_cache:
        cached = CachedTeacher(distiller, strategy, data, config)
        prepare = cached.prepare
        train_stream = functools.partial(data.train_stream, teacher_rows=cached)
    validate, stream = None, data.validation_stream()
    if stream is not None:
        evaluator = Evaluator(strategy, stream)

        def validate():
            network = distiller.evaluation_network()
            return validation_logs(*evaluator.logits(network))

        if folder.is_chief:
            callbacks.append(BestStudent(folder.student_best, monitor))
    trainer = Trainer(
        distiller,
        strategy,
        train_stream,
        steps_per_epoch=data.steps_per_epoch,
        epochs=config.epochs,
        states=folder.states,
        callbacks=callbacks,
        validate=validate,
        prepare=prepare,
        on_epoch=folder.write_history,
        steps_per_call=config.steps_per_call,
        checkpoint_minutes=config.checkpoint_minutes,
        checkpoint_steps=config.checkpoint_steps,
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
    bare = models.sub_model(student, distiller.exits)  # as it is put to use
    result["params"] = bare.count_params()
    result["macs"] = {n: models.count_macs(student, n) for n in distiller.exits}
    result["macs"]["ensemble"] = models.count_macs(bare)
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
