"""Numbers that no change moves in silence, and run folders of earlier versions."""

import copy
import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from tests.support import weights_of
from tf_mskd.runs import experiment
from tf_mskd.runs.flags import read_flagfile
from tf_mskd.runs.result import read_result
from tf_mskd.utils.errors import UserError
from tools import compare_losses, golden

LOSSES = pathlib.Path("tests/golden/losses.json")
FORMER = pathlib.Path("tests/golden/runs_0.1.0")  # one recipe, one run cut at step 25


@pytest.fixture(scope="module")
def known():
    return compare_losses.read(LOSSES)


def test_the_file_says_why_its_numbers_moved(known):
    """A change that moves them writes the file anew, and a line of the changelog."""
    changelog = " ".join(pathlib.Path("CHANGELOG.md").read_text().split())
    assert known["why"] and known["why"] in changelog
    assert list(known["cases"]) == list(golden.configs())


@pytest.mark.run
@pytest.mark.parametrize("name", golden.configs())
def test_losses_and_weights_are_those_of_the_file(known, name):
    """Bit for bit on the machine that wrote them, to 1e-5 elsewhere.

    If they moved on purpose: write the file with `tools/golden.py`, and say why.
    """
    made = {name: golden.trajectory(golden.configs()[name])}
    old = {**known, "cases": {name: known["cases"][name]}}
    new = {"machine": golden.machine(), "cases": made}
    rows, moved = compare_losses.compare(old, new)
    assert not moved, rows


def test_what_moves_is_told(known):
    new = copy.deepcopy(known)
    rows, moved = compare_losses.compare(known, new)
    assert not moved and rows[1][1:] == ("", "0.0e+00", "0.0e+00", "equal")
    name, other = list(known["cases"])[:2]
    case = new["cases"][name]
    case["losses"][3] *= 1 + 1e-7
    case["sha256"] = "0"
    rows, moved = compare_losses.compare(known, new)
    assert rows[1][1] == "4" and rows[1][4] == "differ" and moved == [name]
    new["machine"] = {**known["machine"], "processor": "another"}
    assert not compare_losses.compare(known, new)[1]
    case["losses"][3] *= 1 + 1e-4
    assert compare_losses.compare(known, new)[1] == [name]
    del new["cases"][other]
    assert compare_losses.compare(known, new)[1] == [name, other]


def test_another_file_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(UserError, match=r"a\.json is no file of tools/golden.py"):
        compare_losses.read(tmp_path / "a.json")


def config_of(folder):
    return dataclasses.replace(
        read_flagfile(folder / "flags.txt"), run_dir=str(folder), checkpoint_steps=0
    )


@pytest.mark.run
def test_runs_of_version_0_1_are_read_and_resumed(tmp_path):
    """What they train to is what that version trained to, but for rounding."""
    shutil.copytree(FORMER, tmp_path / "runs")
    finished, unfinished = (tmp_path / "runs" / n for n in ("finished", "unfinished"))
    known = read_result(finished / "result.json")
    assert experiment.run(config_of(finished)) == known
    result = experiment.run(config_of(unfinished))
    assert result.test == pytest.approx(known.test, abs=0.02)
    assert result.macs == known.macs and result.params == known.params
    for one, two in zip(weights_of(finished), weights_of(unfinished), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-2, atol=1e-2)
    assert len((unfinished / "metrics.jsonl").read_text().splitlines()) == 3
