"""A stop is obeyed in every stage, and what is resumed ends as if there were none."""

import contextlib
import dataclasses
import os
import signal
import threading
import time

import pytest

import tf_mskd
from tests.support import PATIENCE, TINY, assert_same_run, history_of, start
from tf_mskd.data.sources import load_source
from tf_mskd.runs import experiment
from tf_mskd.training import checkpoint
from tf_mskd.training.checkpoint import CheckpointManager, read_checkpoint
from tf_mskd.training.cursor import Cursor
from tf_mskd.training.steps import Done
from tf_mskd.training.stopping import Stopped, StopRequest, signals_stop
from tf_mskd.training.trainer import Trainer
from tf_mskd.utils.errors import UserError


def send():
    os.kill(os.getpid(), signal.SIGTERM)


# ---- the trainer


class Counting:
    """Steps that change nothing; one of the calls sends the signal.

    Args:
        at: int, number of that call; 0 for none.
        steps_must_agree: as of `Steps`.
    """

    def __init__(self, at=0, steps_must_agree=False):
        self.steps_must_agree, self._at = steps_must_agree, at
        self.calls, self.ended, self.opened = 0, 0, []

    def open(self, step):
        self.opened.append(step)

    def run(self, steps):
        self.calls += 1
        if self.calls == self._at:
            send()
        self.ended += 1
        return Done(steps, 0.0)

    def guarding(self):
        return contextlib.nullcontext()

    def any_worker(self, *claims):
        return claims

    def check_start(self, step):
        """There is no other worker."""

    def spread_seeds(self, variables):
        """There is one replica."""


@pytest.fixture
def trainer_of(tiny, tmp_path):
    """Makes trainers of two epochs of three steps, all of one run."""
    distiller = tf_mskd.Distiller(tiny(), method="ce")
    distiller.compile(tf_mskd.SGD(0.1))
    distiller.optimizer.build(distiller.trainable_variables)

    def make(loop, **settings):
        return Trainer(
            distiller,
            loop,
            steps_per_epoch=3,
            epochs=2,
            checkpoints=CheckpointManager(tmp_path),
            steps_per_call=1,
            **settings,
        )

    return make


def stop_of(trainer):
    """What a trainer says that is stopped."""
    with pytest.raises(Stopped) as stopped:
        trainer.run()
    assert stopped.value.code == 143
    return stopped.value.text


def steps_saved(trainer):
    return trainer.checkpoints.newest_step()


@pytest.mark.parametrize("stage", ["start", "prepare"])
def test_what_comes_before_the_steps_is_ended_at_once(trainer_of, stage):
    ended = []

    def slow(*_):
        send()
        ended.append(stage)

    loop = Counting()
    text = stop_of(trainer_of(loop, **{stage: slow}))
    assert not ended and not loop.calls
    assert text.startswith("Stopped at epoch 1, step 0 of 3. No step is done yet; run")


def test_the_first_step_is_ended_while_it_is_traced(trainer_of):
    loop = Counting(at=1)
    trainer = trainer_of(loop)
    assert "No step is done yet" in stop_of(trainer)
    assert (loop.calls, loop.ended, steps_saved(trainer)) == (1, 0, 0)


def test_a_later_step_ends_and_is_saved(trainer_of):
    loop = Counting(at=2)
    trainer = trainer_of(loop)
    assert "epoch 1, step 2 of 3. Checkpoint saved" in stop_of(trainer)
    assert (loop.calls, loop.ended, steps_saved(trainer)) == (2, 2, 2)
    history = trainer_of(Counting()).run()
    assert [line["epoch"] for line in history] == [1, 2]


def test_training_goes_on_while_a_checkpoint_is_written(trainer_of, monkeypatch):
    loop, write = Counting(), checkpoint.write_checkpoint
    goes_on = threading.Event()
    loop.open = lambda step: None if step < 3 else goes_on.set()

    def write_late(path, arrays, cursor):
        assert goes_on.wait(PATIENCE)
        write(path, arrays, cursor)
        positions.append(cursor)

    positions, trainer = [], trainer_of(loop, prepare=lambda *_: None)
    monkeypatch.setattr(checkpoint, "write_checkpoint", write_late)
    trainer.run()
    assert [(p["step"], len(p["history"])) for p in positions] == [(3, 1), (6, 2)]
    path = trainer.checkpoints.folder / "checkpoint_0000000006.npz"
    assert read_checkpoint(path, trainer.distiller.state_variables) == positions[1]


def test_a_stop_waits_for_the_checkpoint(trainer_of, monkeypatch):
    write = checkpoint.write_checkpoint

    def write_late(*args):
        time.sleep(0.5)
        write(*args)

    monkeypatch.setattr(checkpoint, "write_checkpoint", write_late)
    trainer = trainer_of(Counting(at=2))
    assert "Checkpoint saved" in stop_of(trainer)
    names = [path.name for path in trainer.checkpoints.folder.iterdir()]
    assert names == ["checkpoint_0000000002.npz"]


def test_a_checkpoint_that_cannot_be_written_ends_the_run(trainer_of, monkeypatch):
    def full(*_):
        raise UserError("Cannot write checkpoint: No space left on device.")

    monkeypatch.setattr(checkpoint, "write_checkpoint", full)
    loop = Counting()
    with pytest.raises(UserError, match="No space left"):
        trainer_of(loop).run()
    assert loop.ended == 6  # seen by the next checkpoint, or the end


def test_a_phase_that_is_traced_after_unsaved_steps_is_not_cut(trainer_of):
    loop = Counting(at=4)
    trainer = trainer_of(loop, checkpoint_epochs=False)
    trainer._callbacks.on_epoch_begin = lambda epoch: trainer._traced.clear()
    assert "epoch 2, step 1 of 3. Checkpoint saved" in stop_of(trainer)
    assert (loop.ended, steps_saved(trainer)) == (4, 4)


def test_several_workers_take_each_step_and_batch_together(trainer_of):
    batches = []

    def validate(after_batch):
        for batch in range(4):
            batches.append(batch)
            after_batch()
        return {"val_loss": 1.0}

    loop = Counting(at=1, steps_must_agree=True)
    assert "epoch 1, step 1 of 3" in stop_of(trainer_of(loop, validate=validate))
    assert loop.ended == 1
    loop = Counting(at=2, steps_must_agree=True)
    assert "epoch 2, step 0 of 3" in stop_of(trainer_of(loop, validate=validate))
    assert batches == [0, 1, 2, 3]


class Validation:
    """Figures of four batches; the signal comes with one of them.

    Args:
        at: int, number of that batch over all epochs; 0 for none.
    """

    def __init__(self, at=0):
        self.at, self.seen = at, 0

    def __call__(self, after_batch):
        for _ in range(4):
            self.seen += 1
            if self.seen == self.at:
                send()
            after_batch()
        return {"val_loss": 0.25}


@pytest.mark.parametrize(("batch", "epoch"), [(1, 1), (2, 1), (7, 2)])
def test_a_stop_within_a_validation_resumes_with_the_whole_of_it(
    trainer_of, tmp_path, batch, epoch
):
    validation = Validation(batch)
    trainer = trainer_of(Counting(), validate=validation)
    text = stop_of(trainer)
    assert f"at epoch {epoch}, step 3 of 3. Checkpoint saved" in text
    assert validation.seen == batch and steps_saved(trainer) == 3 * epoch
    loop, again = Counting(), Validation()
    resumed = trainer_of(loop, validate=again, prepare=lambda *_: None)
    history = resumed.run()
    assert loop.ended == 6 - 3 * epoch
    assert loop.opened == [3 * e for e in range(epoch, 2)]
    assert again.seen == 4 * (3 - epoch)
    expected = [(1, 0.25), (2, 0.25)]
    assert [(line["epoch"], line["val_loss"]) for line in history] == expected


def test_a_stop_in_the_last_step_leaves_the_validation_to_the_resume(trainer_of):
    validation = Validation()
    text = stop_of(trainer_of(Counting(at=3), validate=validation))
    assert "at epoch 1, step 3 of 3" in text and not validation.seen


@pytest.mark.parametrize(
    ("step", "epochs", "fits"),
    [(3, 0, True), (3, 1, True), (4, 0, False), (2, 1, False), (6, 1, True)],
)
def test_a_position_has_its_epochs_done_or_one_to_be_validated(step, epochs, fits):
    cursor = Cursor(2, 3)
    history = [{"epoch": k + 1} for k in range(epochs)]
    position = {"step": step, "seconds": 0.0, "history": history}
    assert cursor._is_position(position) == fits


# ---- the request


def test_a_signal_from_before_ends_a_block_that_may_be_ended():
    with StopRequest().listening() as request:
        send()
        with pytest.raises(Stopped), request.at_once("text"):
            pytest.fail("begun all the same")


def test_after_such_a_block_a_signal_is_remembered_again():
    with StopRequest().listening() as request:
        with request.at_once("text"):
            pass
        send()
        assert request.signal == signal.SIGTERM
        with pytest.raises(Stopped) as stopped:
            send()
        assert stopped.value.text.startswith("Stopped at once.")


def test_a_signal_is_no_other_runs(monkeypatch):
    with pytest.raises(Stopped), signals_stop():
        send()
    with StopRequest().listening() as request:
        assert request.signal is None


# ---- data


def test_a_folder_that_is_listed_is_listed_no_further(tmp_path, monkeypatch):
    for number in range(50):
        (tmp_path / "train" / f"{number:02}").mkdir(parents=True)
    scandir, listed = os.scandir, []

    def watched(path):
        listed.append(path)
        if len(listed) == 5:
            send()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)
    with signals_stop(), pytest.raises(Stopped):
        load_source("folder", tmp_path)
    assert len(listed) == 5


# ---- whole runs

SMALL_BATCHES = dataclasses.replace(TINY, eval_batch_size=8)  # 18 of a validation


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    experiment.run(dataclasses.replace(SMALL_BATCHES, run_dir=str(folder)))
    return folder


@pytest.mark.run
def test_a_run_that_is_stopped_in_a_validation_ends_as_one_that_is_not(whole, tmp_path):
    folder = tmp_path / "run"
    at = ["SIGTERM", "call tf_mskd.tasks.meter:Meter.update 24"]
    done = start(folder, SMALL_BATCHES, at).finish()
    assert done.returncode == 143, done
    assert "Stopped at epoch 2, step 20 of 20. Checkpoint saved" in done.stdout
    assert "epoch 1/3" in done.stdout and "epoch 2/3" not in done.stdout
    assert [line["epoch"] for line in history_of(folder)] == [1]
    done = start(folder, SMALL_BATCHES).finish()
    assert done.returncode == 0, done
    assert_same_run(whole, folder)


@pytest.mark.run
def test_a_run_that_is_stopped_while_it_is_traced_has_done_no_step(tmp_path):
    folder = tmp_path / "run"
    step = "tf_mskd.training.tensorflow_steps:TensorFlowSteps.train_step"
    done = start(folder, at=["SIGTERM", f"call {step} 1"]).finish()
    assert done.returncode == 143, done
    assert "No step is done yet; run the same command" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not list((folder / "checkpoints").iterdir())
