"""The ensemble of runs that were trained apart."""

import dataclasses
import re

import numpy as np
import pytest

from tests.support import OWN
from tf_mskd.runs import experiment
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.runs.result import read_result
from tf_mskd.utils.errors import UserError
from tools import vote_of_runs as tool


def test_groups_take_every_run_once():
    assert tool.groups_of(["a", "b", "c", "d"], 2) == [("a", "b"), ("c", "d")]
    for folders in (["a", "b", "c"], ["a", "a"]):
        with pytest.raises(UserError, match="must be different and as many as groups"):
            tool.groups_of(folders, 2)
    with pytest.raises(UserError, match="--run_dirs is empty"):
        tool.groups_of([], 2)


@pytest.mark.run
def test_a_vote_is_that_of_the_mean_logits(tmp_path):
    folders = []
    for seed in (0, 1):
        folders.append(str(tmp_path / f"own_{seed}"))
        experiment.run(dataclasses.replace(OWN, seed=seed, run_dir=folders[-1]))
    vote = tool.Vote(folders)
    logits = []
    for folder in folders:
        run = FinishedRun(folder)
        outputs, labels = run.logits(run.student())
        logits.append(list(outputs.values())[-1])
    right = np.mean(np.argmax(np.mean(logits, axis=0), axis=-1) == labels)
    np.testing.assert_allclose(vote.figure, right, 1e-6)
    results = [read_result(f"{folder}/result.json") for folder in folders]
    assert vote.params == sum(result.params for result in results)
    assert vote.macs == sum(result.macs["ensemble"] for result in results)
    found, text = tool.differences([vote, vote], folders)
    expected = [vote.figure - result.test["ensemble"] for result in results]
    np.testing.assert_allclose(found, expected)
    assert re.search(r"mean of 2: [+-]\d+\.\d\d, 95 % interval [+-]", text)
