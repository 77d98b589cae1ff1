"""A killed run of BRCD has the clusters of the run that nothing disturbed."""

import dataclasses

import pytest

from tests.support import TINY, assert_same_run
from tests.test_resume import Interruption, Kill, whole_and_killed
from tf_mskd.methods.brcd import BRCD
from tf_mskd.runs import experiment
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.training.checkpoint import CheckpointManager

pytestmark = pytest.mark.run
CODES = {"task": "hashing", "task_args": "bits=16,k=20", "exits": "last"}


def config_in(folder):
    """BRCD under a teacher that a run before has trained."""
    teacher = dataclasses.replace(TINY, method="cib", epochs=1, **CODES)
    (folder / "teacher.flags").write_text(to_flagfile(teacher))
    return dataclasses.replace(
        TINY,
        method="brcd",
        method_args="n_init=2,num_clusters=4",
        teacher_flagfile=str(folder / "teacher.flags"),
        teacher_run_dir=str(folder / "teacher"),
        **CODES,
    )


@pytest.mark.slow
def test_kills_leave_the_run_of_none(tmp_path):
    """One within the write of the first checkpoint, one after it."""
    kills = [Kill(1, when="within"), Kill(41)]
    whole_and_killed(tmp_path, kills, config_in(tmp_path))


def test_an_interrupted_run_does_not_cluster_again(tmp_path, monkeypatch):
    often = {"checkpoint_steps": 5, "steps_per_call": 5, "epochs": 1}
    config = dataclasses.replace(config_in(tmp_path), **often)
    folders = [tmp_path / "whole", tmp_path / "interrupted"]
    calls, prepare, write = [], BRCD.prepare, CheckpointManager.write

    def counted(self, teacher, targets):
        calls.append(len(targets["index"]))
        prepare(self, teacher, targets)

    def interrupted(self, step, variables, cursor):
        write(self, step, variables, cursor)
        if step == 10:
            raise Interruption

    monkeypatch.setattr(BRCD, "prepare", counted)
    result = experiment.run(dataclasses.replace(config, run_dir=str(folders[0])))
    assert 0 < result.test["ensemble"] <= 1
    assert "asymmetric_map_at_k" in result.test_more
    with monkeypatch.context() as patch, pytest.raises(Interruption):
        patch.setattr(CheckpointManager, "write", interrupted)
        experiment.run(dataclasses.replace(config, run_dir=str(folders[1])))
    assert len(calls) == 2
    experiment.run(dataclasses.replace(config, run_dir=str(folders[1])))
    assert len(calls) == 2
    assert_same_run(*folders)
