"""A whole run from its configuration: data, networks, training, result."""

import functools

import keras
import tensorflow as tf

from tf_mskd.callbacks import ExitPhases
from tf_mskd.callbacks.best_student import BestStudent
from tf_mskd.callbacks.progress import Progress
from tf_mskd.data.summary import describe
from tf_mskd.models.saving import save_model
from tf_mskd.runs import build
from tf_mskd.runs.config import Config
from tf_mskd.runs.data import Data
from tf_mskd.runs.initial_weights import init_task_of
from tf_mskd.runs.measurement import measure, report_teacher
from tf_mskd.runs.method_state import prepare_method
from tf_mskd.runs.networks import load_network, load_once, remember_files
from tf_mskd.runs.pictures import draw_examples
from tf_mskd.runs.plan import plan, plan_cache
from tf_mskd.runs.result import Result
from tf_mskd.runs.run_folder import RunFolder
from tf_mskd.runs.source import load
from tf_mskd.runs.task import build_task
from tf_mskd.runs.views_picture import draw_views
from tf_mskd.tasks.meter import Meter, validation_logs
from tf_mskd.teacher_cache.cached_teacher import CachedTeacher, cached_vectors
from tf_mskd.teacher_cache.parts import Part
from tf_mskd.training.evaluation import Evaluator
from tf_mskd.training.profiling import ProfiledLoop
from tf_mskd.training.strategies import create_strategy
from tf_mskd.training.tensorflow_loop import TensorFlowLoop
from tf_mskd.training.term_schedule import TermSchedule
from tf_mskd.training.trainer import Trainer
from tf_mskd.utils.errors import UserError


def run(config: Config) -> Result:
    """Trains what `config` describes, resumes it, or reports that it is finished.

    The runs of `--teacher_flagfile` and `--init_flagfile` are done first, each in a run
    folder of its own, or reused if they are finished; see `plan`.

    Args:
        config: `Config` with `run_dir`.

    Returns:
        `Result`, the content of result.json.

    Raises:
        UserError: for any mistake in the configuration, the data or the folder.
    """
    runs = plan(config)
    with RunFolder(config) as own:  # while its teacher trains too
        if own.result() is not None:
            return _finish(runs[-1], own, None, {})
        # before anything else starts TensorFlow's devices
        strategy = create_strategy(config.strategy, config.num_devices)
        data = _check_all(runs)
        _finish_all(runs[:-1], strategy, data)
        return _finish(runs[-1], own, strategy, data)


def _check_all(runs):
    """Builds each unfinished run untrained, the own one first; returns their data."""
    unfinished = [run for run in reversed(runs) if run.status != "finished"]
    return {run.run_dir: _check_run(run.config) for run in unfinished}


def _finish_all(runs, strategy, data):
    for planned in runs:
        if planned.status == "finished":  # others may read it at the same time
            print(planned.told)
            continue
        with RunFolder(planned.config) as folder:
            _finish(planned, folder, strategy, data)


def _finish(planned, folder, strategy, data):
    result = folder.result()
    if result is None:
        own = data.pop(planned.run_dir)
        print(f"run {folder.path}", describe(own.source), sep="\n", flush=True)
        result = _run(planned, folder, strategy, own)
    print(f"{folder.path} is finished: {result.summary()}")
    return result


def _run(planned, folder, strategy, data):
    config, task = planned.config, build_task(planned.config)
    _set_up(config)
    with strategy.scope():
        seen = build.teacher_source(config, data.source)
        teacher = load_once(folder, "teacher", planned.teacher, seen, task)
        if config.untrained_teacher:
            teacher = build.build_peer(config, data.source)
        init = load_once(folder, "init", planned.init, data.source, task)
        remember_files(folder, config)
        method = build.build_method(config, len(data.source.train.labels))
        distiller = build.build_distiller(
            config, data.source, teacher, init, method, init_task_of(config)
        )
        build.compile_distiller(distiller, config, data.steps_per_epoch)
    test = Evaluator(strategy, data.test_stream(), data.gallery_stream())
    if distiller.teacher is not None and not config.untrained_teacher:
        report_teacher(distiller.teacher, distiller.task, test)
    stream, held_out = data.validation_stream(), None
    if stream is not None:
        held_out = Evaluator(strategy, stream, data.gallery_stream())
    history = _train(distiller, strategy, data, held_out, config, folder)
    result = measure(
        distiller, len(data.train_ids), test, held_out, config, folder.paths, history
    )
    if folder.is_chief:
        save_model(distiller.student, folder.student)
        if distiller.task.has_panels:
            draw_examples(
                distiller.student,
                distiller.task,
                data.source.test,
                folder.paths.examples,
                config.ensemble,
            )
        if distiller.method.trains_teacher:
            save_model(distiller.teacher, folder.trained_teacher)
        if distiller.method.rows_per_image > 1 or distiller.method.teacher_view:
            draw_views(distiller, data, folder.paths.views)
    folder.write_result(result)
    return result


def fill_cache(config: Config, part: Part | None = None) -> CachedTeacher:
    """Fills `config.teacher_cache` ahead, all views; trains the teacher if it must.

    Args:
        config: `Config` of a run with `teacher_cache`; the run itself is not done.
        part: `Part` of the training images to fill it with, or None for all.

    Returns:
        `CachedTeacher`, with the `TeacherCache` as its `cache`.

    Raises:
        UserError: for any mistake in the configuration, the data or the folders.
    """
    runs = plan_cache(config)
    strategy = create_strategy(config.strategy, config.num_devices)
    data = _check_run(config)
    if part:
        part.of(data.train_ids, config.batch_size)  # refuses more than there are
    _finish_all(runs, strategy, _check_all(runs))
    path = runs[-1].run_dir if runs else config.teacher
    _set_up(config)
    with strategy.scope():
        seen = build.teacher_source(config, data.source)
        teacher = load_network(path, seen, build_task(config)) if path else None
        method = build.build_method(config, len(data.source.train.labels))
        distiller = build.build_distiller(config, data.source, teacher, None, method)
    cached = CachedTeacher(distiller, strategy, data, config)
    for view in range(config.views):
        cached.fill(view, part=part)
    return cached


def _check_run(config):
    """Builds a run untrained, see `build.check_run`; returns its data."""
    _set_up(config)
    source = load(config)
    method = build.build_method(config, len(source.train.labels))
    data = Data(config, method, source)
    _check_profile(config, data.steps_per_epoch * config.epochs)
    untrained = build.check_run(config, source, data.steps_per_epoch, method)
    if config.teacher_cache:
        cached_vectors(untrained, config.cache_top_k)
    return data


def _check_profile(config, steps):
    if config.profile_steps and config.profile_steps[1] > steps:
        first, last = config.profile_steps
        raise UserError(
            f"--profile_steps={first},{last} is beyond the last step of the run, "
            f"{steps}: name steps up to that one."
        )


def _set_up(config):
    """Starts from the same global state of Keras, whatever was built before.

    Once before a run is checked and once before it is trained: the weights of a run
    depend on its seed alone, not on the runs and checks of its chain.
    """
    keras.utils.clear_session()
    keras.config.set_dtype_policy(config.dtype_policy)
    keras.utils.set_random_seed(config.seed)
    tf.get_logger().setLevel("ERROR")  # it warns of one tracing per network
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def _train(distiller, strategy, data, held_out, config, folder):
    callbacks = [TermSchedule()]
    if folder.is_chief:
        callbacks.append(Progress(config.batch_size))
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
    validate = None
    if held_out is not None:

        def validate(after_batch):
            network = distiller.evaluation_network()
            meter = Meter(distiller.task, config.ensemble)
            held_out.measure(network, meter, after_batch=after_batch)
            return validation_logs(meter)

        if folder.is_chief:
            callbacks.append(BestStudent(folder.student_best))
    trainer = Trainer(
        distiller,
        _loop(distiller, strategy, train_stream, config, folder),
        steps_per_epoch=data.steps_per_epoch,
        epochs=config.epochs,
        checkpoints=folder.checkpoints,
        callbacks=callbacks,
        validate=validate,
        prepare=prepare,
        start=functools.partial(prepare_method, distiller, strategy, data),
        on_epoch=folder.write_history,
        steps_per_call=config.steps_per_call,
        checkpoint_minutes=config.checkpoint_minutes,
        checkpoint_steps=config.checkpoint_steps,
    )
    return trainer.run()


def _loop(distiller, strategy, stream, config, folder):
    if not config.profile_steps:
        return TensorFlowLoop(distiller, strategy, stream)
    logs = folder.tensorboard if folder.is_chief else None
    return ProfiledLoop(distiller, strategy, stream, config.profile_steps, logs)
