"""Search over the settings of a run."""

import dataclasses

import pytest

from tests.support import SMALL
from tf_mskd.runs.search import read_space, search
from tf_mskd.utils.errors import UserError


@pytest.mark.run
def test_a_search_finds_the_rate_that_learns(tmp_path):
    config = dataclasses.replace(SMALL, method="ce", epochs=2, lr_schedule="constant")
    space = read_space("lr=1e-7|0.05")
    best, score = search(config, space, tmp_path, trials=2)
    assert best["lr"] == 0.05 and score > 0.3
    folders = [p for p in tmp_path.iterdir() if (p / "result.json").exists()]
    assert len(folders) == 2


def test_values_are_read_as_the_flag_reads_them():
    assert read_space("nesterov=true|false") == {"nesterov": [True, False]}
    assert read_space("epochs=1|2") == {"epochs": [1, 2]}
    assert read_space("lr_drops=1,2|3") == {"lr_drops": ["1,2", "3"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--space is empty"),
        ("lrr=1..2", "Unknown setting in --space 'lrr'; did you mean 'lr'"),
        ("lr=a..b", "lr must be low..high"),
        ("lr=0.1|x", "--lr must be a number, got 'x'"),
        ("nesterov=yes|no", "nesterov"),
    ],
)
def test_a_space_that_cannot_be_read_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        read_space(text)


def test_a_search_needs_a_validation_split(tmp_path):
    config = dataclasses.replace(SMALL, validation_fraction=0.0)
    with pytest.raises(UserError, match="needs --validation_fraction > 0"):
        search(config, read_space("lr=0.1|0.2"), tmp_path, 1)
