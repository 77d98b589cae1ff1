"""Measures the networks of a run that has just been trained."""

import typing

import keras
import numpy as np

from tf_mskd import models
from tf_mskd.models.saving import load_model
from tf_mskd.runs.config import Config
from tf_mskd.runs.result import Result
from tf_mskd.tasks import Task
from tf_mskd.tasks.meter import Meter
from tf_mskd.training.chance import warn_at_chance
from tf_mskd.training.distiller import Distiller
from tf_mskd.utils.run_paths import RunPaths
from tf_mskd.utils.units import shown


class Evaluates(typing.Protocol):
    """Runs models over a split; see `training.evaluation.Evaluator`."""

    def logits(self, model: keras.Model) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Returns the logits of every exit and the labels."""

    def measure(
        self, model: keras.Model, meter: Meter, teacher: keras.Model | None = None
    ) -> Meter:
        """Adds what the exits answer to a meter; returns the meter."""


def measure(
    distiller: Distiller,
    train_examples: int,
    test: Evaluates,
    held_out: Evaluates | None,
    config: Config,
    paths: RunPaths,
    history: list[dict],
) -> Result:
    """Measures the networks of a run that is trained.

    Args:
        distiller: the trained one.
        train_examples: int, the images that the run has learnt from.
        test: `Evaluates` over the test split.
        held_out: over the validation split, or None without one.
        config: of the run.
        paths: of the run; its best student is measured if there is one.
        history: the logs of the epochs.
    """
    student, task, kind = distiller.student, distiller.task, config.ensemble
    weights, validation = None, None
    if held_out is not None:
        if task.one_class:
            weights = task.fit_weights(*held_out.logits(student))
        validation = held_out.measure(student, Meter(task, kind, weights)).main()

    def figures(model):
        return test.measure(model, Meter(task, kind)).main()

    meter = Meter(task, kind, weights)
    tested = test.measure(student, meter, distiller.teacher).results()
    best = paths.student_best.exists()
    trains_teacher = distiller.method.trains_teacher
    bare = models.sub_model(student, distiller.exits)  # without auxiliary heads
    macs = {name: models.count_macs(student, name) for name in distiller.exits}
    alone = {name: models.sub_model(student, name) for name in distiller.exits}
    return Result(
        model=config.model,
        teacher=distiller.teacher.name if distiller.teacher else None,
        method=config.method,
        phases=config.phases,
        task=task.name,
        metric=task.metric,
        step_metric=task.step_metric,
        unit=task.unit,
        ensemble=kind,
        seed=config.seed,
        epochs=config.epochs,
        train_examples=train_examples,
        params=bare.count_params(),
        exit_params={name: model.count_params() for name, model in alone.items()},
        macs={**macs, "ensemble": models.count_macs(bare)},
        seconds=round(sum(epoch["seconds"] for epoch in history), 1),
        test=tested.pop(task.metric),
        test_more=tested or None,
        test_best=figures(load_model(paths.student_best)) if best else None,
        test_teacher=figures(distiller.teacher) if trains_teacher else None,
        validation=validation,
        fitted_weights=weights,
    )


def report_teacher(teacher: keras.Model, task: Task, test: Evaluates) -> None:
    """Prints how good a trained teacher is on the test split; warns of chance."""
    meter, answers = Meter(task), None
    if task.one_class:
        answers = test.logits(teacher)
        meter.update(*answers)
    else:
        test.measure(teacher, meter)
    table, names = meter.main(), models.exit_names(teacher)
    exits = ", ".join(f"{name} {shown(table[name], task.unit)}" for name in names)
    print(f"teacher {teacher.name}, on the test split: {exits}")
    if answers:
        warn_at_chance(teacher.name, *answers, "the test split")
