"""Fault -> message -> state: what a run does when the world around it breaks."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.test_train import SMALL, history_of, weights_of
from tf_mskd import checkpoint, experiment, files
from tf_mskd.errors import UserError
from tf_mskd.flags import to_flagfile
from tf_mskd.report import read_runs
from tf_mskd.run_folder import RunFolder
from tf_mskd.saving import load_model, save_model

ROOT = pathlib.Path(__file__).parents[1]
TINY = dataclasses.replace(
    SMALL, method="ce", width=0.0625, train_fraction=0.5, epochs=3, dropout=0.1
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    experiment.run(dataclasses.replace(TINY, run_dir=str(folder)))
    return folder


def start(folder, config=TINY):
    """Starts a run in a process of its own, with frequent states."""
    often = {"checkpoint_steps": 3, "steps_per_call": 3, "run_dir": str(folder)}
    flagfile = folder.with_suffix(".flags")
    flagfile.write_text(to_flagfile(dataclasses.replace(config, **often)))
    command = [sys.executable, "-m", "tf_mskd.train", f"--flagfile={flagfile}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)


def wait_for_states(folder, count):
    """Waits until the run has written a state of at least so many steps."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        names = [p.stem for p in (folder / "checkpoints").glob("state_*.npz")]
        if any(int(name.split("_")[1]) >= count for name in names):
            return
        time.sleep(0.02)
    raise AssertionError(f"no state of {count} steps in {folder}")


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
    """Kills a run without warning at some moments, then finishes it.

    `kills` are steps, or pairs of the name of a run folder beside this one and a step.
    """
    for kill in kills:
        name, step = kill if isinstance(kill, tuple) else (folder.name, kill)
        process = start(folder, config)
        wait_for_states(folder.parent / name, step)
        process.kill()
        process.communicate()
    process = start(folder, config)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-2000:]


def test_three_kills_leave_the_run_of_none(whole, tmp_path):
    kill_and_finish(tmp_path / "run", kills=(3, 24, 41))
    assert_same_run(whole, tmp_path / "run")


SLOW_RUNS = {
    "dropout": {},
    "autoaugment": {"augment": "autoaugment,crop", "train_fraction": 0.3},
    "progressive": {"method": "mskd", "phases": "progressive", "epochs": 4},
    "chain": {"method": "oto", "epochs": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_RUNS)
def test_five_kills_at_random_moments_leave_the_run_of_none(tmp_path, name):
    config = dataclasses.replace(TINY, **SLOW_RUNS[name])
    folders = [tmp_path / "whole" / "run", tmp_path / "killed" / "run"]
    for folder in folders:
        folder.parent.mkdir()
    if config.method != "ce":
        teacher = dataclasses.replace(TINY, width=0.125)
        (tmp_path / "teacher.flags").write_text(to_flagfile(teacher))
        flagfile = str(tmp_path / "teacher.flags")
        config = dataclasses.replace(config, teacher_flagfile=flagfile)
    kill_and_finish(folders[0], (), config)
    last = 20 * config.epochs - 1 if config.train_fraction == 0.5 else 30
    steps = np.random.default_rng(len(name)).integers(1, last, 5)
    kills = sorted(steps.tolist())
    if config.method != "ce":  # the first two while the teacher trains
        kills[:2] = [("teacher", kills[0]), ("teacher", kills[1])]
    kill_and_finish(folders[1], kills, config)
    assert_same_run(*folders)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_signal_keeps_the_state_and_says_how_to_go_on(whole, tmp_path, number, code):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for_states(folder, 24)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output[-2000:]
    assert "the same command goes on from there" in output
    assert "Traceback" not in output
    kill_and_finish(folder, kills=())
    assert_same_run(whole, folder)


def test_a_second_process_is_refused_and_a_dead_owner_is_not(tmp_path):
    config = dataclasses.replace(TINY, run_dir=str(tmp_path / "run"))
    with RunFolder(config):
        with pytest.raises(UserError, match=rf"in use by host .*, pid {os.getpid()}"):
            with RunFolder(config):
                pass
    with RunFolder(config):  # the file is still there, its owner is not
        assert (tmp_path / "run" / "lock").exists()


def full_disk(monkeypatch, tmp_path):
    def savez(file, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", savez)
    return TINY, "Cannot write .*state_.*: No space left on device"


def teacher_of_nan(monkeypatch, tmp_path):
    config = dataclasses.replace(TINY, method="mskd", teacher=str(tmp_path / "t.keras"))
    model = load_model(tmp_path / "whole")
    model.get_layer("exit_4").set_weights(
        [np.full_like(w, np.nan) for w in model.get_layer("exit_4").get_weights()]
    )
    save_model(model, config.teacher)
    return config, "not finite numbers at epoch 1, step 1 of"


def damaged_teacher(monkeypatch, tmp_path):
    config = dataclasses.replace(TINY, method="mskd", teacher=str(tmp_path / "t.keras"))
    data = (tmp_path / "whole" / "student.keras").read_bytes()
    pathlib.Path(config.teacher).write_bytes(data[: len(data) // 2])
    return config, "Cannot read model file .*t.keras"


def teacher_that_is_a_pickle(monkeypatch, tmp_path):
    config = dataclasses.replace(TINY, method="mskd", teacher=str(tmp_path / "t.keras"))
    import pickle

    pathlib.Path(config.teacher).write_bytes(pickle.dumps([1, 2]))
    return config, "Cannot read model file .*t.keras"


def read_only_folder(monkeypatch, tmp_path):
    def replace(source, target):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", replace)
    return TINY, "Cannot write .*flags.txt: Read-only file system"


def loss_that_explodes(monkeypatch, tmp_path):
    config = dataclasses.replace(TINY, lr=1e20, lr_schedule="constant")
    return config, r"not finite numbers at epoch 1, step \d+ of"


def teacher_of_infinity(monkeypatch, tmp_path):
    config, message = teacher_of_nan(monkeypatch, tmp_path)
    model = load_model(config.teacher)
    last = model.get_layer("exit_4")
    last.set_weights([np.full_like(w, np.inf) for w in last.get_weights()])
    save_model(model, config.teacher)
    return config, message


def corrupt_image(monkeypatch, tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for name in ("one", "two"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for k in range(4):
                Image.new("RGB", (8, 8), (k, k, k)).save(folder / f"{k}.png")
    (tmp_path / "images" / "train" / "two" / "3.png").write_bytes(b"no image")
    root = str(tmp_path / "images")
    return dataclasses.replace(TINY, dataset="folder", data_dir=root), "two/3.png"


def data_that_are_not_prepared(monkeypatch, tmp_path):
    config = dataclasses.replace(TINY, dataset="cifar100", data_dir=str(tmp_path))
    return config, "tf_mskd.data.prepare --dataset=cifar100"


def flagfile_of_nonsense(monkeypatch, tmp_path):
    path = tmp_path / "bad.flags"
    path.write_text("--epochs=many\n")
    config = dataclasses.replace(TINY, method="mskd", teacher_flagfile=str(path))
    return config, "bad.flags: .*epochs"


# fault -> its message, made by the function; the state after each is the same: no
# result, no half-written file, and whatever was there before is intact
FAULTS = [
    full_disk,
    read_only_folder,
    loss_that_explodes,
    teacher_of_nan,
    teacher_of_infinity,
    damaged_teacher,
    teacher_that_is_a_pickle,
    corrupt_image,
    data_that_are_not_prepared,
    flagfile_of_nonsense,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_gets_one_line_and_leaves_no_result(
    whole, tmp_path, monkeypatch, fault
):
    shutil.copytree(whole, tmp_path / "whole")
    config, message = fault(monkeypatch, tmp_path)
    run_dir = tmp_path / "run"
    with pytest.raises(UserError, match=message) as caught:
        experiment.run(dataclasses.replace(config, run_dir=str(run_dir)))
    assert "\n" not in str(caught.value)
    assert not (run_dir / "result.json").exists()
    assert not list(run_dir.glob(".*")), "a temporary file was left"


def test_a_jumping_clock_changes_nothing(whole, tmp_path, monkeypatch):
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    experiment.run(dataclasses.replace(TINY, run_dir=str(tmp_path / "run")))
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.parametrize("text", ["{", "[1]\n", "[" * 100_000, "\x00"])
def test_hostile_metrics_are_refused(whole, tmp_path, text):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match="metrics.jsonl"):
        read_runs([tmp_path / "run"])


def test_another_teacher_in_the_same_place_is_refused(whole, tmp_path):
    config = dataclasses.replace(TINY, run_dir=str(tmp_path / "run"))
    with RunFolder(config) as folder:
        folder.check_fingerprint("teacher", "t.keras", "a" * 64)
    with RunFolder(config) as folder:
        folder.check_fingerprint("teacher", "t.keras", "a" * 64)
        with pytest.raises(UserError, match="teacher at t.keras is not the one"):
            folder.check_fingerprint("teacher", "t.keras", "b" * 64)


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(UserError, match="Cannot write .*file.json"):
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")
    assert files.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04K\x01."])
def test_a_hostile_state_file_is_refused(tmp_path, content):
    path = tmp_path / "state.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.read_state(path, [])


def test_a_state_of_objects_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    cursor = np.frombuffer(b"{}", np.uint8)
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(path, cursor=cursor, variable_000000=objects)
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.read_state(path, [None])
