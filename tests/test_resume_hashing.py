"""A killed run of BRCD has the clusters of the run that nothing disturbed."""

import dataclasses
import pathlib

import pytest

from tests.support import OWN, STEPS, assert_same_run
from tests.test_resume import Interruption, Kill, kill_and_finish
from tf_mskd.methods.brcd import BRCD
from tf_mskd.runs import experiment
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.training.checkpoint import CheckpointManager

pytestmark = pytest.mark.run
CODES = dataclasses.replace(
    OWN,
    method="cib",
    task="hashing",
    task_args="bits=16,k=20",
    augment="crop",
    crop_padding=1,
    validation_fraction=0.0,
    optimizer="adam",
    lr=0.001,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """BRCD's configuration, in the folder of its teacher's run and its own."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "teacher.flags").write_text(to_flagfile(CODES))
    config = dataclasses.replace(
        CODES,
        method="brcd",
        method_args="n_init=1,num_clusters=4",
        epochs=2,
        teacher_flagfile=str(folder / "teacher.flags"),
        teacher_run_dir=str(folder / "teacher"),
        run_dir=str(folder / "run"),
    )
    result = experiment.run(config)
    assert 0 < result.test["ensemble"] <= 1
    assert "asymmetric_map_at_k" in result.test_more
    return config


def test_kills_leave_the_run_of_none(whole, tmp_path):
    """One within the write of the first checkpoint, so that the clusters are lost."""
    kills = [Kill(1, when="within"), Kill(STEPS + 1)]
    kill_and_finish(tmp_path / "run", kills, whole)
    assert_same_run(pathlib.Path(whole.run_dir), tmp_path / "run")


def test_an_interrupted_run_does_not_cluster_again(whole, tmp_path, monkeypatch):
    often = {"checkpoint_steps": 5, "steps_per_call": 5}
    config = dataclasses.replace(whole, run_dir=str(tmp_path / "run"), **often)
    calls, prepare, write = [], BRCD.prepare, CheckpointManager.write

    def counted(self, teacher, targets):
        calls.append(len(targets["index"]))
        prepare(self, teacher, targets)

    def interrupted(self, step, variables, cursor):
        write(self, step, variables, cursor)
        if step == 10:
            raise Interruption

    monkeypatch.setattr(BRCD, "prepare", counted)
    with monkeypatch.context() as patch, pytest.raises(Interruption):
        patch.setattr(CheckpointManager, "write", interrupted)
        experiment.run(config)
    assert len(calls) == 1
    experiment.run(config)
    assert len(calls) == 1
    assert_same_run(pathlib.Path(whole.run_dir), tmp_path / "run")
