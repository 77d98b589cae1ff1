"""Two worker processes on one machine give the run of one device, and stop together."""

import dataclasses
import json
import pathlib
import shutil
import signal
import socket

import numpy as np
import pytest

from tests.support import (
    SMALL,
    Command,
    assert_same_result,
    history_of,
    wait_for,
    weights_of,
)
from tf_mskd.runs import experiment
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.training.strategies import create_strategy
from tf_mskd.utils.errors import UserError

pytestmark = pytest.mark.run

# few steps: training amplifies the last digit, in which sums over devices differ
SHORT = dataclasses.replace(
    SMALL,
    method="ce",
    width=0.0625,
    lr=0.005,
    epochs=3,
    train_fraction=0.1,
    lr_schedule="constant",
)


def free_ports(count):
    """Ports that nothing listens to at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start_workers(config, folder, at=(), second=()):
    """Starts two workers on one run folder; returns their processes.

    `at` are arguments of `tests.signal_at` for the first worker, `second` are more
    flags for the second.
    """
    flagfile = folder.with_suffix(".flags")
    flagfile.write_text(to_flagfile(dataclasses.replace(config, run_dir=str(folder))))
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    flags = [f"--flagfile={flagfile}", "--strategy=multi_worker"]
    flags += ["--checkpoint_steps=2", "--steps_per_call=2"]
    processes = []
    for index, more in enumerate(([], second)):
        task = {"type": "worker", "index": index}
        cluster = json.dumps({"cluster": {"worker": hosts}, "task": task})
        module = ["tests.signal_at", *at] if at and not index else []
        command = [*module, "tf_mskd.train", *flags, *more]
        processes.append(Command(*command, environment={"TF_CONFIG": cluster}))
    return processes


def finish(processes):
    """Waits for both workers to end well."""
    for done in [process.finish() for process in processes]:
        assert done.returncode == 0, done


def is_stopped(pid):
    """Whether a process stands still after SIGSTOP."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return "State:\tT" in status


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A finished run of two workers."""
    folder = tmp_path_factory.mktemp("workers") / "run"
    finish(start_workers(SHORT, folder))
    return folder


def assert_run_of_one(together, config, alone):
    """Two workers end as one process does with the same settings."""
    experiment.run(dataclasses.replace(config, run_dir=str(alone)))
    for a, b in zip(weights_of(alone), weights_of(together), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    for a, b in zip(history_of(alone), history_of(together), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_two_workers_give_the_run_of_one(together, tmp_path):
    assert_run_of_one(together, SHORT, tmp_path / "alone")


def test_two_workers_have_the_mixtures_of_one(tmp_path):
    recipe = {"augment": "crop,erase", "mixup": 0.2, "cutmix": 1.0, "repeats": 2}
    config = dataclasses.replace(SHORT, epochs=2, **recipe)
    finish(start_workers(config, tmp_path / "together"))
    assert_run_of_one(tmp_path / "together", config, tmp_path / "alone")


@pytest.mark.parametrize("dead", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_dead_worker_stops_the_other_and_both_resume(together, tmp_path, dead):
    """The first one stands still at a checkpoint while a worker is killed."""
    folder = tmp_path / "run"
    processes = start_workers(SHORT, folder, at=["SIGSTOP", "after run 6"])
    wait_for(lambda: is_stopped(processes[0].pid))
    processes[dead].send_signal(signal.SIGKILL)
    assert processes[dead].finish().returncode == -signal.SIGKILL
    if dead == 1:
        processes[0].send_signal(signal.SIGCONT)
    done = processes[1 - dead].finish()
    assert done.returncode == 2, done
    assert "error: Another worker has stopped" in done.stderr
    assert "Traceback" not in done.stderr
    finish(start_workers(SHORT, folder))
    assert_same_result(together, folder)
    # a worker's sums of losses are taken up by the first one: added in another order
    for a, b in zip(history_of(together), history_of(folder), strict=True):
        assert a == pytest.approx(b, rel=1e-6)


def test_workers_that_do_not_share_a_folder_are_refused(together, tmp_path):
    run = shutil.copytree(together, tmp_path / "run")
    (run / "result.json").unlink()  # it was killed in its last epoch
    max((run / "checkpoints").glob("*.npz")).unlink()
    own = [f"--run_dir={tmp_path / 'own'}"]
    done = [p.finish() for p in start_workers(SHORT, run, second=own)]
    assert [d.returncode for d in done] == [2, 2], done
    assert "error: This worker's newest checkpoint is of step 0" in done[1].stderr


@pytest.mark.parametrize("text", ["", "{", '{"task": {"index": 0}}'])
def test_a_missing_or_broken_tf_config_is_explained(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="multi_worker needs the variable TF_CONFIG"):
        create_strategy("multi_worker")
