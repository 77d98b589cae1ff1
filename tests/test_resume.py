"""Runs that are killed or stopped end as the run that nothing disturbed."""

import dataclasses
import signal
import time
from typing import NamedTuple

import numpy as np
import pytest

from tests.support import OWN, STEPS, TINY, assert_same_run, start, temporary_files
from tf_mskd.runs import experiment
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.training.checkpoint import CheckpointManager

pytestmark = pytest.mark.run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    experiment.run(dataclasses.replace(TINY, run_dir=str(folder)))
    return folder


class Kill(NamedTuple):
    """A moment to kill a run without warning.

    Args:
        step: int, when the checkpoint of at least so many steps is on the disk.
        folder: str, name of the run folder: its own, or that of its teacher.
        when: "after" that checkpoint, or "within": half-way through writing it.
    """

    step: int
    folder: str = "run"
    when: str = "after"


def kill_and_finish(folder, kills, config=TINY):
    """Kills a run without warning at some moments, then finishes it."""
    for kill in kills:
        moment = f"{kill.when} {kill.folder} {kill.step}"
        done = start(folder, config, ["SIGKILL", moment]).finish()
        assert done.returncode == -signal.SIGKILL, done
    done = start(folder, config).finish()
    assert done.returncode == 0, done
    assert not temporary_files(folder)


RUNS = {  # what to kill -> its settings; all have dropout
    "dropout": {},
    "autoaugment": {"augment": "autoaugment,crop"},
    "progressive": {"method": "mskd", "phases": "progressive", "epochs": 4},
    "chain": {"method": "oto"},
    "memory bank": {"method": "crd", "method_args": "num_negatives=64"},
    "averages": {
        "optimizer": "adamw",
        "lr": 0.0,
        "ema": 0.9,
        "clip_norm": 1.0,
        "accumulate_steps": 3,
        "label_smoothing": 0.1,
    },
    "mixed": {
        "augment": "crop,flip,randaugment,erase",
        "mixup": 0.2,
        "cutmix": 1.0,
        "label_smoothing": 0.1,
        "repeats": 2,
    },
    "muon": {"optimizer": "muon", "lr": 0.0, "ema": 0.9},
    "maps": {
        "dataset": "nuclei",
        "task": "segmentation",
        "image_size": 32,
        "augment": "crop,flip,rotate",
        "batch_size": 8,
        "train_fraction": 1.0,
    },
}


def config_of(name, folder):
    """The configuration of a run; a method with a teacher has it trained first."""
    config = dataclasses.replace(TINY, **RUNS[name])
    if config.method == "ce":
        return config
    teacher = dataclasses.replace(TINY, width=0.125)
    (folder / "teacher.flags").write_text(to_flagfile(teacher))
    return dataclasses.replace(config, teacher_flagfile=str(folder / "teacher.flags"))


def whole_and_killed(tmp_path, kills, config):
    """Two runs, the second with kills, end alike."""
    folders = [tmp_path / "whole" / "run", tmp_path / "killed" / "run"]
    for folder in folders:
        folder.parent.mkdir()
    experiment.run(dataclasses.replace(config, run_dir=str(folders[0])))
    kill_and_finish(folders[1], kills, config)
    assert_same_run(*folders)


def test_three_kills_leave_the_run_of_none(tmp_path):
    """One meets the teacher; one the write that ends an epoch of the student."""
    kills = [Kill(24, "teacher"), Kill(STEPS, when="within"), Kill(41)]
    whole_and_killed(tmp_path, kills, config_of("chain", tmp_path))


class Interruption(BaseException):
    """Ends a run where it stands, without anything that a stop does."""


@pytest.mark.parametrize("name", ["averages", "mixed", "muon", "maps"])
def test_an_interruption_leaves_no_trace(tmp_path, name, monkeypatch):
    """In the middle of a sum of gradients; averages of weights are raw in between."""
    often = {"checkpoint_steps": 5, "steps_per_call": 5, "epochs": 2}
    base = TINY if name == "maps" else OWN
    config = dataclasses.replace(base, **{**RUNS[name], **often})
    folders = [tmp_path / "whole", tmp_path / "interrupted"]
    experiment.run(dataclasses.replace(config, run_dir=str(folders[0])))
    write = CheckpointManager.write

    def interrupted(self, step, variables, cursor):
        write(self, step, variables, cursor)
        if step >= STEPS + 5:
            raise Interruption

    with monkeypatch.context() as patch, pytest.raises(Interruption):
        patch.setattr(CheckpointManager, "write", interrupted)
        experiment.run(dataclasses.replace(config, run_dir=str(folders[1])))
    experiment.run(dataclasses.replace(config, run_dir=str(folders[1])))
    assert_same_run(*folders)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_kills_at_random_moments_leave_the_run_of_none(tmp_path, name):
    """One kill in the write that ends an epoch (and a phase), five at random.

    Two of the five meet the teacher, if there is one.
    """
    config = config_of(name, tmp_path)
    seed = list(RUNS).index(name)
    last = STEPS * min(config.epochs, TINY.epochs) - 1
    steps = np.sort(np.random.default_rng(seed).integers(1, last, 5))
    kills = [Kill(int(step)) for step in steps]
    met = 2 if config.teacher_flagfile else 0  # first: no kill meets it once it is done
    teacher = [kill._replace(folder="teacher") for kill in kills[:met]]
    kills = [*teacher, Kill(STEPS, when="within"), *kills[met:]]
    whole_and_killed(tmp_path, kills, config)


def test_a_signal_keeps_the_checkpoint_and_names_the_way_to_resume(whole, tmp_path):
    folder = tmp_path / "run"
    for name, step, code in (("SIGTERM", 24, 143), ("SIGINT", 41, 130)):
        done = start(folder, at=[name, f"after run {step}"]).finish()
        assert done.returncode == code, done
        assert "Checkpoint saved; run the same command to resume." in done.stdout
        assert "Traceback" not in done.stderr
    kill_and_finish(folder, ())
    assert_same_run(whole, folder)


def test_a_jumping_clock_changes_nothing(whole, tmp_path, monkeypatch):
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    experiment.run(dataclasses.replace(TINY, run_dir=str(tmp_path / "run")))
    assert_same_run(whole, tmp_path / "run")
