"""Two worker processes on one machine give the run of one device, and stop together."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.test_resume import ROOT, TINY, assert_same_run, wait_for_states
from tests.test_train import history_of, weights_of
from tf_mskd.runs import experiment
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.training.strategies import create_strategy
from tf_mskd.utils.errors import UserError

# few steps: training amplifies the last digit, in which sums over devices differ
SHORT = dataclasses.replace(
    TINY, dropout=0.0, lr=0.005, epochs=2, train_fraction=0.1, lr_schedule="constant"
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


def start_workers(config, folder, second=()):
    """Starts two workers on one run folder; returns their processes.

    `second` are more flags for the second worker alone.
    """
    flagfile = folder.with_suffix(".flags")
    flagfile.write_text(to_flagfile(dataclasses.replace(config, run_dir=str(folder))))
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": hosts}, "task": task})
        command = [sys.executable, "-m", "tf_mskd.train", f"--flagfile={flagfile}"]
        command += ["--strategy=multi_worker", "--checkpoint_steps=5"]
        command += second if index else ()
        log = open(folder.with_suffix(f".{index}.log"), "w")
        processes.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "TF_CONFIG": config},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )
        log.close()
    return processes


def finish(folder, processes):
    """Waits for both workers to end well."""
    for index, process in enumerate(processes):
        code = process.wait(timeout=300)
        assert code == 0, folder.with_suffix(f".{index}.log").read_text()[-3000:]


def test_two_workers_give_the_run_of_one(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    experiment.run(dataclasses.replace(SHORT, run_dir=str(alone)))
    finish(together, start_workers(SHORT, together))
    for a, b in zip(weights_of(alone), weights_of(together), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    for a, b in zip(history_of(alone), history_of(together), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


@pytest.mark.parametrize("dead", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_dead_worker_stops_the_other_and_both_resume(tmp_path, dead):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finish(whole, start_workers(TINY, whole))
    processes = start_workers(TINY, parts)
    wait_for_states(parts, 25)
    processes[dead].kill()
    killed = time.monotonic()
    processes[dead].wait()
    assert processes[1 - dead].wait(timeout=60) == 2
    assert time.monotonic() - killed < 30
    log = parts.with_suffix(f".{1 - dead}.log").read_text()
    assert "error: Another worker has gone" in log and "Traceback" not in log
    finish(parts, start_workers(TINY, parts))
    assert_same_run(whole, parts)


def test_workers_that_do_not_share_a_folder_are_refused(tmp_path):
    experiment.run(dataclasses.replace(SHORT, run_dir=str(tmp_path / "run")))
    (tmp_path / "run" / "result.json").unlink()  # it was killed in its second epoch
    max((tmp_path / "run" / "checkpoints").glob("state_*.npz")).unlink()
    own = (f"--run_dir={tmp_path / 'own'}",)
    processes = start_workers(SHORT, tmp_path / "run", own)
    assert [process.wait(timeout=120) for process in processes] == [2, 2]
    log = (tmp_path / "run.1.log").read_text()
    assert "error: This worker stands at step 0, another does not" in log


@pytest.mark.parametrize("text", ["", "{", '{"task": {"index": 0}}'])
def test_a_missing_or_broken_tf_config_is_explained(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="multi_worker needs the variable TF_CONFIG"):
        create_strategy("multi_worker")
