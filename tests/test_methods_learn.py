"""Every method, from its flagfile, on real digits: far above chance, its terms fall.

All learn by `Distiller.fit`, of one teacher; by a whole run one method for each thing
that a run does for methods.
"""

import dataclasses
import functools
import json
import pathlib

import keras
import numpy as np
import pytest

from tests.method_support import METHODS
from tf_mskd.runs import build, experiment
from tf_mskd.runs.data import Data
from tf_mskd.runs.flags import read_flagfile, to_flagfile
from tf_mskd.training.term_schedule import TermSchedule

ROOT = pathlib.Path(__file__).parents[1]
SMALL = {"tensorboard": False, "epochs": 6, "train_fraction": 0.5, "width": 0.25}
SMALL["teacher_stage"] = ""  # the chains are written out below
EXITS = {"all": "1,2", "last": "2"}  # of networks of two stages
FIRST = {  # the method of the run that a method's teacher comes from
    "ft": "paraphraser",
    "sskd": "sskd_teacher",
    "hsakd": "hsakd_teacher",
}
HEADS = tuple(FIRST.values())  # trained on the frozen teacher, whose exits stay
STARTS = {"ab": "ce"}  # they only initialise a student, which the other method trains
RISING = {"dbt": "its temperature rises, and the entropy of soft labels with it"}
EPOCHS = {"at": 20}  # its published weight of 1000 holds the labels back at first
ARGUMENTS = dict.fromkeys(("sskd", "sskd_teacher"), "crop_padding=1")
ARGUMENTS["crd"] = "num_negatives=256"
RUNS = {  # a method, and what only a run does for it
    "kd": "its teacher is trained first, or found",
    "ft": "a chain: the teacher, the paraphraser on it, the student",
    "crd": "positions of examples and of negatives arrive",
    "sskd": "several rows an image, of a teacher with a projection",
    "ab": "a student starts from another run",
    "dml": "the teacher learns, is measured and saved",
    "dbt": "a state of the method's own, in every checkpoint",
    "ccd": "a second view of each image arrives",
}


def settings(folder, name, method, **changes):
    """The configuration of a method's flagfile behind the digits pair, and its file."""
    path = folder / f"{name}.flags"
    lines = ["configs/digits/pair.flags", f"configs/methods/{method}.flags"]
    path.write_text("".join(f"--flagfile={line}\n" for line in lines))
    config = dataclasses.replace(read_flagfile(path), **{**SMALL, **changes})
    changes = {"exits": EXITS[config.exits]}
    if config.exit_head == "dense" and method != "eed":  # it compares vectors
        changes["exit_head"] = "linear"
    if method in ARGUMENTS:
        changes["method_args"] = ARGUMENTS[method]
    config = dataclasses.replace(config, **changes)
    path.write_text(to_flagfile(config))
    return path, config


# ---- by fit


class School:
    """What each method has trained, once: its student and its logs of two epochs."""

    def __init__(self, folder):
        self.folder = folder
        self.learn = functools.cache(self._learn)

    def _learn(self, name):
        """Returns (student, logs of the first epoch, of the last)."""
        if name == "teacher":
            return self.fit("ce", None, None, exits="all")
        if name in HEADS:
            changes = {"freeze": "backbone", "epochs": 2, "exits": "all"}
            changes["init_flagfile"] = "of the teacher"  # is only looked at
            return self.fit(name, None, self.copy("teacher"), **changes)
        return self.fit(name, self.copy(FIRST.get(name, "teacher")), None)

    def copy(self, name):
        """A student that another may freeze or train."""
        student = self.learn(name)[0]
        copy = keras.models.clone_model(student)
        copy.set_weights(student.get_weights())
        return copy

    def fit(self, method, teacher, init, **changes):
        changes = {"teacher_flagfile": "", "untrained_teacher": False, **changes}
        changes.setdefault("epochs", EPOCHS.get(method, SMALL["epochs"]))
        _, config = settings(self.folder, method, method, **changes)
        data = Data(config, build.build_method(config))
        made = build.build_method(config, len(data.source.train.labels))
        if not made.needs_teacher:
            teacher = None
        distiller = build.build_distiller(config, data.source, teacher, init, made)
        build.compile_distiller(distiller, config, data.steps_per_epoch)
        history = distiller.fit(
            data.train_stream(0),
            steps_per_epoch=data.steps_per_epoch,
            epochs=config.epochs,
            callbacks=[TermSchedule()],
            verbose=0,
            shuffle=False,  # the stream is
        ).history
        first, last = ({n: v[i] for n, v in history.items()} for i in (0, -1))
        return distiller.student, first, last


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    return School(tmp_path_factory.mktemp("school"))


@pytest.mark.run
@pytest.mark.parametrize("name", METHODS)
def test_it_learns_by_fit(name, school, monkeypatch):
    monkeypatch.chdir(ROOT)
    student, first, last = school.learn(name)
    if name in STARTS:
        student, *_ = school.fit(STARTS[name], None, student)
    test = Data(settings(school.folder, "test", "ce")[1]).source.test
    logits = student(test.images, training=False)
    answers = np.argmax(sum(z for n, z in logits.items() if n[:4] == "exit"), -1)
    accuracy = np.mean(answers == test.labels)
    assert accuracy > 0.6, f"{name}: {accuracy}"
    fall(name, first, last)


def fall(name, first, last):
    """The terms of distillation are lower in the last epoch than in the first."""
    terms = [n for n in first if "/" in n and not n.startswith("ce/")]
    if terms and name not in RISING:
        before, after = (sum(logs[n] for n in terms) for logs in (first, last))
        assert after < before, f"{name}: distillation went from {before} to {after}"


# ---- by whole runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.mark.run
@pytest.mark.parametrize("name", RUNS)
def test_its_run_learns(name, folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    alone = {"teacher_flagfile": "", "exits": "all"}
    teacher, _ = settings(folder, "teacher", "ce", **alone)
    changes = {"teacher_flagfile": str(teacher)}
    if name in FIRST:
        frozen = {**alone, "init_flagfile": str(teacher), "freeze": "backbone"}
        first, _ = settings(folder, FIRST[name], FIRST[name], epochs=2, **frozen)
        changes = {"teacher_flagfile": str(first)}
    path, config = settings(folder, name, name, **changes)
    if name in STARTS:
        after = {"init_flagfile": str(path), "teacher_flagfile": ""}
        _, config = settings(folder, f"after_{name}", STARTS[name], **after)
    run_dir = folder / f"run_{name}"
    result = experiment.run(dataclasses.replace(config, run_dir=str(run_dir)))
    measured = folder / name if name in STARTS else run_dir
    lines = (measured / "metrics.jsonl").read_text().splitlines()
    assert result.test["ensemble"] > 0.6, f"{name}: {result.test}"
    fall(name, json.loads(lines[0]), json.loads(lines[-1]))
