"""Runs that are killed or stopped end as the run that nothing disturbed."""

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pytest

from tests.test_train import SMALL, history_of, weights_of
from tf_mskd.runs import experiment
from tf_mskd.runs.flags import to_flagfile

ROOT = pathlib.Path(__file__).parents[1]
TINY = dataclasses.replace(
    SMALL, method="ce", width=0.0625, train_fraction=0.5, epochs=3, dropout=0.1
)
STEPS = 20  # an epoch of it


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    experiment.run(dataclasses.replace(TINY, run_dir=str(folder)))
    return folder


class Kill(NamedTuple):
    """A moment to kill a run without warning.

    Args:
        step: int, after the state of at least so many steps is on the disk.
        folder: str, name of a run folder beside the run's own, or "" for its own.
        writing: bool, half-way through writing the state of just this step instead.
    """

    step: int
    folder: str = ""
    writing: bool = False


def start(folder, config=TINY, module=("tf_mskd.train",), **options):
    """Starts a run in a process of its own, with frequent states."""
    often = {"checkpoint_steps": 3, "steps_per_call": 3, "run_dir": str(folder)}
    flagfile = folder.with_suffix(".flags")
    flagfile.write_text(to_flagfile(dataclasses.replace(config, **often)))
    command = [sys.executable, "-m", *module, f"--flagfile={flagfile}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes, **options)


def wait_for(condition, seconds=240):
    """Waits until the condition, a function without arguments, is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def wait_for_states(folder, count):
    """Waits until the run has written a state of at least so many steps."""

    def written():
        names = [p.stem for p in (folder / "checkpoints").glob("state_*.npz")]
        return any(int(name.split("_")[1]) >= count for name in names)

    wait_for(written)


def assert_same_run(one, two):
    """Both runs have the same epochs, the same results and the same weights."""
    assert history_of(one) == history_of(two)
    results = [json.loads((f / "result.json").read_text()) for f in (one, two)]
    for result in results:
        result.pop("seconds")
    assert results[0] == results[1]
    for a, b in zip(weights_of(one), weights_of(two), strict=True):
        np.testing.assert_array_equal(a, b)


def kill_and_finish(folder, kills, config=TINY):
    """Kills a run without warning at some moments, then finishes it."""
    for kill in kills:
        if kill.writing:
            module = ("tests.die_while_writing", str(kill.step))
            process = start(folder, config, module)
        else:
            process = start(folder, config)
            wait_for_states(folder.parent / (kill.folder or folder.name), kill.step)
            process.kill()
        output, _ = process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL, output[-2000:]
    process = start(folder, config)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-2000:]
    assert not temporary_files(folder)


def temporary_files(folder):
    return [path for path in folder.rglob(".*") if path.is_file()]


def test_three_kills_leave_the_run_of_none(whole, tmp_path):
    kills = [Kill(20, writing=True), Kill(24), Kill(41)]
    kill_and_finish(tmp_path / "run", kills)
    assert_same_run(whole, tmp_path / "run")


SLOW_RUNS = {  # what to kill at random -> its settings; all have dropout
    "dropout": {},
    "autoaugment": {"augment": "autoaugment,crop"},
    "progressive": {"method": "mskd", "phases": "progressive", "epochs": 4},
    "chain": {"method": "oto"},
    "memory bank": {"method": "crd", "method_args": "num_negatives=64"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_RUNS)
def test_kills_at_random_moments_leave_the_run_of_none(tmp_path, name):
    """One kill in the write that ends an epoch (and a phase), five at random.

    A method with a teacher has it trained first, by the same command; two of the five
    meet it.
    """
    config = dataclasses.replace(TINY, **SLOW_RUNS[name])
    folders = [tmp_path / "whole" / "run", tmp_path / "killed" / "run"]
    for folder in folders:
        folder.parent.mkdir()
    has_teacher = config.method != "ce"
    if has_teacher:
        teacher = dataclasses.replace(TINY, width=0.125)
        (tmp_path / "teacher.flags").write_text(to_flagfile(teacher))
        flagfile = str(tmp_path / "teacher.flags")
        config = dataclasses.replace(config, teacher_flagfile=flagfile)
    kill_and_finish(folders[0], (), config)
    seed = list(SLOW_RUNS).index(name)
    last = STEPS * min(config.epochs, TINY.epochs) - 1
    kills = [Kill(step) for step in np.random.default_rng(seed).integers(1, last, 5)]
    kills = sorted(kills)
    if has_teacher:
        kills[:2] = [kill._replace(folder="teacher") for kill in kills[:2]]
    kill_and_finish(folders[1], [Kill(STEPS, writing=True), *kills], config)
    assert_same_run(*folders)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_signal_keeps_the_state_and_says_how_to_go_on(whole, tmp_path, number, code):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for_states(folder, 24)
    process.send_signal(number)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output[-2000:]
    assert "the same command goes on from there" in output
    assert "Traceback" not in output
    kill_and_finish(folder, ())
    assert_same_run(whole, folder)


def test_a_jumping_clock_changes_nothing(whole, tmp_path, monkeypatch):
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    experiment.run(dataclasses.replace(TINY, run_dir=str(tmp_path / "run")))
    assert_same_run(whole, tmp_path / "run")
