"""Search over the settings of a run."""

import dataclasses
import math

import pytest

from tests.support import SMALL
from tf_mskd.runs import experiment
from tf_mskd.runs.comparison import find_runs, read_runs
from tf_mskd.runs.search import Trial, folder_name, read_space, search, summary
from tf_mskd.utils.errors import UserError


@pytest.mark.run
def test_a_search_finds_the_rate_that_learns(tmp_path):
    config = dataclasses.replace(SMALL, method="ce", epochs=2, lr_schedule="constant")
    space = read_space("lr=1e-7|0.05;nesterov=no")
    best, worst = search(config, space, tmp_path, trials=2)
    assert best.settings["lr"] == 0.05 and best.score > 0.3
    assert worst.settings["lr"] == 1e-7 and worst.score < best.score
    names = ["lr=0.05,nesterov=false", "lr=1e-07,nesterov=false"]
    assert list(read_runs([tmp_path])) == names
    assert list(read_runs([tmp_path / names[1]])) == names[1:]


class Measured:
    """What a search reads of a result."""

    def __init__(self, accuracy):
        self.validation = {"ensemble": accuracy}


def runs_of(monkeypatch, run):
    """Replaces the training of a trial by `run`; returns the list of its configs."""
    seen = []

    def recorded(config):
        seen.append(config)
        return Measured(run(config))

    monkeypatch.setattr(experiment, "run", recorded)
    return seen


def test_every_value_reaches_the_run_as_its_type(tmp_path, monkeypatch):
    seen = runs_of(monkeypatch, lambda config: 0.5)
    space = "nesterov=false|yes;lr_drops=1,2|3;epochs=2..9;method_args=a=1|a=2"
    search(SMALL, read_space(space), tmp_path, trials=8)
    assert {c.nesterov for c in seen} == {False, True}
    assert {c.lr_drops for c in seen} == {(1, 2), (3,)}
    assert {c.method_args["a"] for c in seen} == {"1", "2"}
    assert all(type(c.epochs) is int and 2 <= c.epochs <= 9 for c in seen)
    assert len({c.epochs for c in seen}) > 2


def test_a_search_goes_on_after_trials_that_fail_and_says_their_errors(
    tmp_path, monkeypatch
):
    def run(config):
        if config.epochs == 5:
            raise UserError("--epochs=5 is one too many.")
        if config.epochs != 9:
            raise MemoryError("no room\nfor it")
        return 0.75

    runs_of(monkeypatch, run)
    space = read_space("epochs=1|2|3|4|5|9")
    for _ in range(2):  # the same command again keeps the trials
        first, *failed = search(SMALL, space, tmp_path, trials=6)
        assert (first.settings, first.score) == ({"epochs": 9}, 0.75)
        errors = {t.settings["epochs"]: t.error for t in failed}
        room = "MemoryError: no room\\nfor it"
        assert errors == {**dict.fromkeys((1, 2, 3, 4), room), 5: errors[5]}
        assert errors[5] == "--epochs=5 is one too many."
    other = tmp_path / "other"
    with pytest.raises(UserError, match=r"No trial of .* the last error: --epochs=5"):
        search(SMALL, read_space("epochs=5"), other, trials=1)


def test_the_summary_is_a_table_with_errors_only_where_there_are_some():
    good = Trial({"lr": 0.1, "nesterov": "true"}, 0.5)
    assert summary([good], "%").splitlines() == [
        "| lr  | nesterov | validation |",
        "| --- | -------: | ---------: |",
        "| 0.1 |     true |      50.00 |",
    ]
    bad = Trial({"lr": 9.0, "nesterov": "false"}, math.nan, "it diverged")
    lines = summary([good, bad], "%").splitlines()
    assert lines[0].endswith("| validation |       error |")
    assert lines[3].endswith("|    false |            | it diverged |")


def test_values_are_read_as_the_flag_reads_them():
    assert read_space("nesterov=true|0") == {"nesterov": [True, False]}
    assert read_space("nesterov=yes|off") == {"nesterov": [True, False]}
    assert read_space("epochs=1|2") == {"epochs": [1, 2]}
    assert read_space("lr_drops=1,2|3") == {"lr_drops": ["1,2", "3"]}
    assert read_space("epochs = 2..8:log ; lr=1..2") == {
        "epochs": (2, 8, True),
        "lr": (1.0, 2.0, False),
    }
    above = read_space("teacher=../a|../b")
    assert above == {"teacher": ["../a", "../b"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--space is empty"),
        ("lrr=1..2", "Unknown setting in --space 'lrr'; did you mean 'lr'"),
        ("run_dir=a|b", "Unknown setting in --space 'run_dir'"),
        ("lr=a..b", "--lr must be a number, got 'a'"),
        ("lr=1..", "--space: lr must be low..high.* got '1..'"),
        ("lr=1..2..3", "--space: lr must be low..high.* got '1..2..3'"),
        ("lr=2..1", "--space: lr needs low < high, got '2..1'"),
        ("lr=0..1:log", "--space: lr needs 0 < low < high, got '0..1:log'"),
        ("lr=1..2:lgo", "the scale of lr must be log, got 'lgo'; did you mean 'log'"),
        ("epochs=1..2.5", "--epochs must be an integer, got '2.5'"),
        ("epochs=0..2", r"--epochs must be in \[1, inf\], got 0"),
        ("momentum=0.5|2", r"--momentum must be in \[0, 1\], got 2"),
        ("exit_head=dense|linaer", "--exit_head must be .*did you mean 'linear'"),
        ("lr=0.1|x", "--lr must be a number, got 'x'"),
        ("lr=0.1|0.10", "--space: lr has one value twice, got '0.1|0.10'"),
        ("lr=1|2;lr=3|4", "--space names lr twice"),
        ("nesterov=maybe|no", "--nesterov must be true or false, got 'maybe'"),
        ("nesterov=0..1", "--nesterov must be true or false, got '0..1'"),
    ],
)
def test_a_space_that_cannot_be_read_is_refused(text, message):
    with pytest.raises(UserError, match=message.replace("|", r"\|")) as caught:
        read_space(text)
    assert str(caught.value).isprintable()


def test_trials_have_folders_of_their_own_with_any_value():
    names = [folder_name({"teacher": t}) for t in ("a/b", "a_b", "写真", "x" * 300)]
    names.append(folder_name({"teacher": "x" * 299}))
    assert len(set(names)) == len(names)
    assert names[1:3] == ["teacher=a_b", "teacher=写真"]
    assert all("/" not in name and len(name.encode()) <= 255 for name in names)


def test_a_search_needs_a_validation_split(tmp_path):
    config = dataclasses.replace(SMALL, validation_fraction=0.0)
    with pytest.raises(UserError, match="needs --validation_fraction > 0"):
        search(config, read_space("lr=0.1|0.2"), tmp_path, 1)


def test_a_folder_without_finished_trials_is_refused(tmp_path):
    (tmp_path / "lr=0.1").mkdir()
    with pytest.raises(UserError, match="holds no finished run"):
        find_runs([tmp_path])
