"""result.json: what is written reads back, and nothing else is taken for a result."""

import dataclasses
import json
import re

import pytest

from tests.support import PLAIN
from tf_mskd.runs.result import read_result, write_result
from tf_mskd.utils.errors import UserError

WHOLE = dataclasses.replace(
    PLAIN,
    teacher="resnet18",
    test_best=PLAIN.test,
    test_teacher={"exit_4": 0.25, "ensemble": 0.25},
    validation={**PLAIN.test, "ensemble_fitted": 1.0},
    fitted_weights={"exit_1": 0.0, "exit_10": 2.5},
    exit_params={"exit_1": 3, "exit_10": 4},
)


@pytest.mark.parametrize("result", [PLAIN, WHOLE], ids=["plain", "whole"])
def test_a_result_reads_back_as_it_was_written(tmp_path, result):
    path = tmp_path / "result.json"
    write_result(path, result)
    assert read_result(path) == result
    assert json.loads(path.read_text())["format"] == 2


def test_a_result_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLAIN.seed = 1


def test_the_summary_is_in_percent():
    expected = "test exit_1 50.00 %, exit_10 75.00 %, ensemble 100.00 %"
    assert PLAIN.summary() == f"{expected}, ensemble_logits 0.00 %"


DAMAGED = [
    {"test": None},
    {"test": {"exit_1": 50.0}},
    {"test": {"exit_1": -0.1}},
    {"test": {"exit_1": True}},
    {"test": {"exit_1": float("nan")}},
    {"test": {"exit_0": 0.5}},
    {"test": {"exit_x": 0.5}},
    {"test": {"mean_logits": 0.5}},
    {"test_best": [0.5]},
    {"test_teacher": {"exit_1": 2}},
    {"validation": {"exit_1": "0.5"}},
    {"fitted_weights": {"ensemble": 1.0}},
    {"exit_params": {"ensemble": 5}},
    {"macs": {"exit_1": 40}},
    {"macs": {"ensemble": "100"}},
    {"model": 5},
    {"teacher": 5},
    {"params": 1.5},
    {"seconds": None},
    {"surprise": 1},
]


@pytest.mark.parametrize("change", DAMAGED)
def test_what_no_run_writes_is_refused(tmp_path, change):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({**WHOLE.to_json(), **change}))
    with pytest.raises(UserError, match="result.json is damaged: .*Remove it") as error:
        read_result(path)
    assert str(error.value).isprintable()


LATER = {"task", "metric", "step_metric", "unit"}  # which former files lack


def test_a_result_without_a_task_is_one_of_classes(tmp_path):
    path, content = tmp_path / "result.json", PLAIN.to_json()
    path.write_text(json.dumps({n: v for n, v in content.items() if n not in LATER}))
    assert read_result(path) == PLAIN


def test_figures_without_unit_may_be_above_1(tmp_path):
    path = tmp_path / "result.json"
    decibels = {"metric": "psnr", "unit": "dB", "test": {"exit_1": 18.5}}
    path.write_text(json.dumps({**PLAIN.to_json(), **decibels}))
    assert read_result(path).summary() == "test exit_1 18.50 dB"


@pytest.mark.parametrize("name", sorted(PLAIN.to_json().keys() - {"format"} - LATER))
def test_a_result_without_one_of_its_values_is_refused(tmp_path, name):
    path, content = tmp_path / "result.json", PLAIN.to_json()
    del content[name]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is damaged"):
        read_result(path)


@pytest.mark.parametrize("change", [{}, {"format": 3}, {"format": "2"}])
def test_another_format_is_refused_by_its_number(tmp_path, change):
    path, content = tmp_path / "result.json", PLAIN.to_json()
    del content["format"]
    path.write_text(json.dumps({**content, **change}))
    number = re.escape(repr(change.get("format", 1)))
    with pytest.raises(UserError, match=f"has format {number}, this version reads 2"):
        read_result(path)
