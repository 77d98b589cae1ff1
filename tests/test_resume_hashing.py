"""A killed run of BRCD has the clusters of the run that nothing disturbed."""

import dataclasses

import pytest

from tests.support import TINY, weights_of
from tests.test_resume import Kill, whole_and_killed
from tf_mskd.methods.brcd import BRCD
from tf_mskd.runs import experiment
from tf_mskd.runs.flags import to_flagfile

pytestmark = pytest.mark.run
CODES = {"task": "hashing", "task_args": "bits=16,k=20", "exits": "last"}


def config_in(folder):
    """BRCD under a teacher that a run before has trained."""
    teacher = dataclasses.replace(TINY, method="cib", **CODES)
    (folder / "teacher.flags").write_text(to_flagfile(teacher))
    return dataclasses.replace(
        TINY,
        method="brcd",
        method_args="n_init=2,num_clusters=4",
        teacher_flagfile=str(folder / "teacher.flags"),
        teacher_run_dir=str(folder / "teacher"),
        **CODES,
    )


def test_kills_leave_the_run_of_none(tmp_path):
    """One within the write of the first checkpoint, one after it."""
    config = config_in(tmp_path)
    kills = [Kill(1, when="within"), Kill(41)]
    whole_and_killed(tmp_path, kills, config)


def test_a_finished_step_keeps_the_clusters(tmp_path, monkeypatch):
    """A resumed run does not cluster again: it would be refused."""
    config = config_in(tmp_path)
    config = dataclasses.replace(config, run_dir=str(tmp_path / "run"))
    calls, prepare = [], BRCD.prepare

    def counted(self, teacher, targets):
        calls.append(len(targets["index"]))
        prepare(self, teacher, targets)

    monkeypatch.setattr(BRCD, "prepare", counted)
    result = experiment.run(config)
    assert len(calls) == 1 and 0 < result.test["exit_2"] <= 1
    assert "asymmetric_map_at_k" in result.test_more
    assert weights_of(tmp_path / "run")
