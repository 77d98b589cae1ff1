"""The line of an epoch, and how long a run waits for its data."""

import dataclasses
import threading
import types

import numpy as np
import pytest
import tensorflow as tf

from tests.support import OWN, wait_for
from tf_mskd.callbacks import progress
from tf_mskd.callbacks.progress import Progress
from tf_mskd.runs import experiment
from tf_mskd.tasks.classification import Classification
from tf_mskd.training.steps import Done
from tf_mskd.training.tensorflow_loop import TensorFlowLoop
from tf_mskd.training.trainer import Trainer

# ---- the time that a call waits


class Clock:
    """A clock that only the reading of a batch and a step move; each looks, once."""

    def __init__(self, monkeypatch):
        self.now, self.look = 0.0, lambda: None
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def move(self, value, ticks):
        def move(value):
            self.now += ticks
            self.look()
            return value

        moved = tf.numpy_function(move, [value], tf.float32)
        return tf.ensure_shape(moved, ())


def loop_of(clock, fetch, work, strategy, options=None):
    """Steps that take so many ticks, on batches that take so many."""

    def train_step(batch):
        # after the loss, as the update of the weights is
        clock.move(batch, work)
        return {"loss": batch}

    data = tf.data.Dataset.range(20).map(lambda i: clock.move(float(i), fetch))
    data = data.with_options(options or tf.data.Options())
    distiller = types.SimpleNamespace(phase=1, train_step=train_step)
    loop = TensorFlowLoop(distiller, strategy, lambda step: data.skip(step))
    clock.look = loop._wait.look
    loop.open(0)
    return loop


@pytest.mark.parametrize(("fetch", "work"), [(3, 1), (0, 1), (1, 0), (1, 6)])
def test_the_wait_is_that_of_the_batch_alone(fetch, work, monkeypatch):
    """Were the mark set early or late, or a step run beside, the ticks would differ."""
    in_order = tf.data.Options()  # nothing is read ahead
    in_order.autotune.enabled = False
    in_order.experimental_optimization.apply_default_optimizations = False
    clock = Clock(monkeypatch)
    loop = loop_of(clock, fetch, work, tf.distribute.get_strategy(), in_order)
    for steps in (1, 2, 9):
        start = clock.now
        assert loop.run(steps) == (steps, steps * fetch)
        assert clock.now - start == steps * (fetch + work)


@pytest.mark.parametrize("device", ["CPU:0", ""])
def test_a_strategy_that_reads_ahead_waits_for_a_part(device, monkeypatch):
    mirrored = tf.distribute.MirroredStrategy(["CPU:0"])
    strategy = tf.distribute.OneDeviceStrategy(device) if device else mirrored
    clock = Clock(monkeypatch)
    finite, waited = loop_of(clock, 1, 1, strategy).run(15)
    assert finite == 15 and 0 <= waited <= clock.now <= 35


def test_another_thread_looks_while_a_call_waits():
    """The batch comes once the waiting has been seen, however slow the machine is."""

    def fetch(i):
        wait_for(lambda: loop._wait.seconds > i)
        return np.float32(0)

    def data(step):
        seen = tf.data.Dataset.from_tensors(0.0)
        seen = seen.map(lambda i: tf.numpy_function(fetch, [i], tf.float32))
        return seen.map(lambda x: tf.ensure_shape(x, ()))

    distiller = types.SimpleNamespace(phase=1, train_step=lambda x: {"loss": x})
    loop = TensorFlowLoop(distiller, tf.distribute.get_strategy(), data)
    with loop.guarding():
        loop.open(0)
        assert loop.run(1).waited > 0
    names = [thread.name for thread in threading.enumerate()]
    assert "data wait" not in names


class Finite:
    """Steps that take and wait as long as they are told."""

    steps_must_agree = False

    def __init__(self, clock, waits):
        self.clock, self.waits = clock, iter(waits)

    def open(self, step):
        """Nothing to open."""

    def run(self, steps):
        self.clock[0] += 10.0 * steps
        return Done(steps, next(self.waits))

    def any_worker(self, *claims):
        return claims


def test_an_epoch_tells_its_share_which_is_no_part_of_the_history(monkeypatch):
    clock, told = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    distiller = types.SimpleNamespace(
        phase=1,
        learning_parts=(),
        optimizer=types.SimpleNamespace(use_ema=False, learning_rate=0.1),
        reset_metrics=lambda: None,
        training_logs=lambda: {"loss": 1.0},
    )
    trainer = Trainer(
        distiller,
        Finite(clock, [10.0, 0.0, 5.0, 2.0]),
        steps_per_epoch=2,
        epochs=2,
        checkpoints=None,
        steps_per_call=1,
        checkpoint_minutes=0.0,
        checkpoint_epochs=False,
    )
    trainer._callbacks = types.SimpleNamespace(
        on_epoch_begin=lambda epoch: None,
        on_train_batch_end=lambda step: None,
        on_epoch_end=lambda epoch, logs: told.append(logs["waiting"]),
    )
    monkeypatch.setattr(trainer, "_save", lambda: None)
    for _ in range(2):
        trainer._epoch()
    assert told == [10 / 20, 7 / 20]
    assert all("waiting" not in epoch for epoch in trainer.cursor.history)


# ---- what is printed


def lines_of(epochs, monkeypatch, capsys, first=0):
    """What is printed of epochs of 10 steps of 32 images.

    Args:
        epochs: list of (seconds that the clock has moved, logs).
    """
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    shown = Progress(32)
    shown.set_params({"epochs": 4, "steps": 10})
    shown.set_model(types.SimpleNamespace(task=Classification()))
    shown.on_train_begin({"first_step": first})
    for epoch, (seconds, logs) in enumerate(epochs, start=first // 10):
        clock[0] += seconds
        shown.on_epoch_end(epoch, {"loss": 1.0, "seconds": 4.0, **logs})
    return capsys.readouterr().out.splitlines()


def test_a_line_has_speed_and_time_to_go(monkeypatch, capsys):
    logs = {"exit_1_accuracy": 0.5, "waiting": 0.05}
    lines = lines_of(
        [(100, logs), (1000, logs), (30, logs), (30, logs)], monkeypatch, capsys
    )
    assert lines == [
        "epoch 1/4  loss 1.000  exit_1 50.0  4.0 s  80 images/s  5 min to go",
        "epoch 2/4  loss 1.000  exit_1 50.0  4.0 s  80 images/s  33 min to go",
        "epoch 3/4  loss 1.000  exit_1 50.0  4.0 s  80 images/s  30 s to go",
        "epoch 4/4  loss 1.000  exit_1 50.0  4.0 s  80 images/s",
    ]


def test_a_resumed_run_counts_its_own_steps(monkeypatch, capsys):
    (line,) = lines_of([(10, {})], monkeypatch, capsys, first=25)
    assert line.endswith("20 s to go")  # 5 steps in 10 s, 10 to go
    (line,) = lines_of([(10, {"seconds": 0.0})], monkeypatch, capsys, first=30)
    assert line == "epoch 4/4  loss 1.000  0.0 s"


def test_waiting_is_told_above_the_threshold_and_the_hint_once(monkeypatch, capsys):
    shares = [0.05, 0.234, 0.9, 0.0]
    epochs = [(1, {"waiting": share}) for share in shares]
    lines = lines_of(epochs, monkeypatch, capsys)
    told = ["waiting for data" in line for line in lines]
    assert told == [False, True, False, True, False]
    assert lines[1].endswith("  waiting for data 23 %")
    assert lines[2] == progress.HINT and lines[2].isprintable()
    assert lines[3].endswith("  waiting for data 90 %")


def test_short_epochs_are_not_judged(monkeypatch, capsys):
    logs = {"waiting": 0.9, "seconds": 1.9}
    (line,) = lines_of([(1, logs)], monkeypatch, capsys)
    assert "waiting" not in line


@pytest.mark.run
def test_a_run_whose_images_come_slowly_says_so(tmp_path, monkeypatch, capsys):
    run = TensorFlowLoop.run

    def slow(loop, steps):
        return run(loop, steps)._replace(waited=3600.0)

    monkeypatch.setattr(TensorFlowLoop, "run", slow)
    monkeypatch.setattr(progress, "JUDGED", 0.0)
    experiment.run(dataclasses.replace(OWN, run_dir=str(tmp_path)))
    text = capsys.readouterr().out
    assert "images/s  waiting for data 100 %" in text and progress.HINT in text
    assert "waiting" not in (tmp_path / "metrics.jsonl").read_text()
