"""A whole run from its configuration under JAX; see `runs.experiment`."""

import dataclasses

import keras

from tf_mskd.callbacks.best_student import BestStudent
from tf_mskd.callbacks.progress import Progress
from tf_mskd.data.summary import describe
from tf_mskd.models.saving import save_model
from tf_mskd.on_jax.evaluator import JaxEvaluator
from tf_mskd.on_jax.images import Images
from tf_mskd.on_jax.loop import JaxLoop
from tf_mskd.runs import build
from tf_mskd.runs.config import Config
from tf_mskd.runs.initial_weights import init_task_of
from tf_mskd.runs.measurement import measure, report_teacher
from tf_mskd.runs.networks import load_once, remember_files
from tf_mskd.runs.plan import plan
from tf_mskd.runs.result import Result
from tf_mskd.runs.run_folder import RunFolder
from tf_mskd.runs.source import load
from tf_mskd.runs.task import build_task
from tf_mskd.tasks.meter import Meter, validation_logs
from tf_mskd.training.term_schedule import TermSchedule
from tf_mskd.training.trainer import Trainer
from tf_mskd.utils.errors import UserError

MOVES = (("crop",), ("flip",), ("crop", "flip"), ())
CHECKPOINT_MINUTES = 2.0  # an epoch may take a second
ONE_DEVICE = ("auto", "one_device")
TARGETS = {"label", "index"}  # that a step delivers


def run(config: Config) -> Result:
    """Trains what `config` describes, resumes it, or reports that it is finished.

    As `runs.experiment.run`, on one device, with the data set in its memory. The run
    folder is that of any run: `tf_mskd.report` and TensorFlow read it.

    Args:
        config: `Config` with `run_dir`.

    Returns:
        `Result`, the content of result.json.

    Raises:
        UserError: for any mistake in the configuration, the data or the folder, and for
            settings that need TensorFlow.
    """
    runs = plan(config)
    for planned in runs:
        if planned.status != "finished":  # others may have been trained elsewhere
            check_config(planned.config)
    return [_finish(planned) for planned in runs][-1]


def check_config(config: Config) -> None:
    """Raises `UserError` for settings that need the TensorFlow backend."""
    method = build.build_method(config, 1)
    beyond = [name for name in method.target_keys if name not in TARGETS]
    names = tuple(name for name in config.augment if name != "none")
    needs = {
        "task": not build_task(config).one_class,
        "phases": config.phases == "progressive",
        "method": method.changes_batch or method.trains_teacher or bool(beyond),
        "augment": names not in MOVES,
        "memory": config.memory == "stream",
        "mixup": config.mixup > 0,
        "cutmix": config.cutmix > 0,
        "repeats": config.repeats > 1,
        "teacher_cache": bool(config.teacher_cache),
        "strategy": config.strategy not in ONE_DEVICE,
        "teacher_size": bool(config.teacher_size),
        "num_devices": config.num_devices > 1,
        "profile_steps": bool(config.profile_steps),
    }
    for name, needed in needs.items():
        if needed:
            value = getattr(config, name)
            text = ",".join(map(str, value)) if isinstance(value, tuple) else value
            raise UserError(
                f"--{name}={text} needs the TensorFlow backend: unset KERAS_BACKEND, "
                "or leave the flag at its default."
            )


def _finish(planned):
    if planned.status == "finished":  # others may read it at the same time
        print(planned.told, flush=True)
        return planned.result
    with RunFolder(planned.config) as folder:
        result = folder.result() or _run(planned, folder)
        print(f"{folder.path} is finished: {result.summary()}", flush=True)
        return result


def _run(planned, folder):
    config, task = planned.config, build_task(planned.config)
    source = load(dataclasses.replace(config, memory="decoded"))
    print(f"run {folder.path}", describe(source), sep="\n", flush=True)
    if config.tensorboard:
        print("no logs for TensorBoard, which need TensorFlow", flush=True)
    keras.utils.clear_session()
    keras.config.set_dtype_policy(config.dtype_policy)
    keras.utils.set_random_seed(config.seed)
    images = Images(config, source)
    teacher = load_once(folder, "teacher", planned.teacher, source, task)
    init = load_once(folder, "init", planned.init, source, task)
    remember_files(folder, config)
    method = build.build_method(config, len(source.train.labels))
    distiller = build.build_distiller(
        config, source, teacher, init, method, init_task_of(config)
    )
    build.compile_distiller(distiller, config, images.steps_per_epoch)
    size = config.eval_batch_size
    test, held_out = JaxEvaluator(source.test, None, size), None
    if len(images.validation_ids):
        held_out = JaxEvaluator(source.train, images.validation_ids, size)
    if distiller.teacher is not None:
        report_teacher(distiller.teacher, distiller.task, test)
    history = _train(distiller, images, held_out, config, folder)
    result = measure(
        distiller, len(images.train_ids), test, held_out, config, folder.paths, history
    )
    save_model(distiller.student, folder.student)
    folder.write_result(result)
    return result


def _train(distiller, images, held_out, config, folder):
    callbacks, validate = [TermSchedule(), Progress(config.batch_size)], None
    if held_out is not None:

        def validate(after_batch):
            meter = Meter(distiller.task, config.ensemble)
            held_out.measure(distiller.student, meter, after_batch=after_batch)
            return validation_logs(meter)

        callbacks.append(BestStudent(folder.student_best))
    trainer = Trainer(
        distiller,
        JaxLoop(distiller, images),
        steps_per_epoch=images.steps_per_epoch,
        epochs=config.epochs,
        checkpoints=folder.checkpoints,
        callbacks=callbacks,
        validate=validate,
        on_epoch=folder.write_history,
        steps_per_call=images.steps_per_epoch,
        checkpoint_minutes=CHECKPOINT_MINUTES,
        checkpoint_epochs=False,
    )
    return trainer.run()
