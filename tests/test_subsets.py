"""Subsets of exits: six images by hand, the numbers of a run, what is refused."""

import dataclasses
import json

import numpy as np
import pytest

from tests.support import Command, run_of_two_exits
from tf_mskd import UserError
from tf_mskd.early_exit import subsets
from tf_mskd.early_exit.agreement import agreement
from tf_mskd.early_exit.subset_text import agreement_lines, subset_lines
from tf_mskd.models import count_macs, sub_model
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.runs.result import read_result
from tf_mskd.runs.subset_evaluation import evaluate_subsets

# all are right; none; exit 1 alone; exit 3 alone; exits 2 and 3; exits 1 and 2
LABELS = np.array([0, 1, 2, 0, 1, 2])
LOGITS = {
    "exit_1": [[2, 0, 0], [2, 0, 0], [0, 0, 1], [0, 2, 0], [3, 0, 0], [0, 0, 4]],
    "exit_2": [[1, 0, 0], [0, 0, 2], [5, 0, 0], [0, 1, 0], [0, 2, 0], [0, 0, 4]],
    "exit_3": [[3, 0, 0], [1, 0, 0], [0, 2, 0], [8, 0, 0], [0, 2, 0], [1, 0, 0]],
}
LOGITS = {name: np.array(values, np.float64) for name, values in LOGITS.items()}
RIGHT = {"1": 3, "2": 3, "3": 3, "1,2": 2, "1,3": 3, "2,3": 4, "1,2,3": 4}
MACS = {"1": 10, "2": 20, "3": 30, "1,2": 22, "1,3": 32, "2,3": 36, "1,2,3": 40}
COSTS = {
    tuple(f"exit_{k}" for k in key.split(",")): subsets.Cost(macs, 2 * macs)
    for key, macs in MACS.items()
}


def by_numbers(measured):
    return {subsets.numbers(row["exits"]): row for row in measured["subsets"]}


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_six_images_by_hand(kind):
    for names, hits in subsets.subset_hits(LOGITS, LABELS, kind).items():
        scores = np.stack([LOGITS[name] for name in names])
        if kind == "probabilities":
            scores = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        expected = scores.mean(0).argmax(-1) == LABELS
        np.testing.assert_array_equal(hits, expected, str(names))
        count = RIGHT[subsets.numbers(names)]
        loud = kind == "probabilities" and len(names) == 3  # exit 3 on the fourth
        assert hits.sum() == count - loud


def test_validation_sorts_marks_and_chooses():
    given = LOGITS, LABELS
    measured = subsets.measure_subsets(given, COSTS, "logits", given)
    rows = by_numbers(measured)
    assert list(rows) == ["2,3", "1,2,3", "1", "2", "3", "1,3", "1,2"]
    assert [key for key, row in rows.items() if row["pareto"]] == ["2,3", "1"]
    for key, row in rows.items():
        assert (row["macs"], row["params"]) == (MACS[key], 2 * MACS[key])
        assert row["test"] == row["validation"]
        assert row["test"]["logits"] == RIGHT[key] / 6
    assert rows["1,2,3"]["test"]["probabilities"] == 3 / 6
    exits = ["exit_2", "exit_3"]
    assert measured["best"] == {"exits": exits, "gain": 0.0, "standard_error": 0.0}
    best = subsets.measure_subsets(given, COSTS, "probabilities", given)["best"]
    assert best["exits"] == exits
    np.testing.assert_allclose(best["gain"], 1 / 6)  # one image of six
    np.testing.assert_allclose(best["standard_error"], np.sqrt(5 / 36 / 6))


def test_the_test_split_chooses_nothing():
    swapped = {"exit_1": LOGITS["exit_2"], "exit_2": LOGITS["exit_1"]}
    given = {**swapped, "exit_3": LOGITS["exit_3"]}, LABELS  # there 1 and 3 are best
    measured = subsets.measure_subsets(given, COSTS, "logits", (LOGITS, LABELS))
    assert measured["best"]["exits"] == ["exit_2", "exit_3"]
    np.testing.assert_allclose(measured["best"]["gain"], -1 / 6)
    alone = subsets.measure_subsets(given, COSTS)
    assert alone["best"] is None and alone["sorted_by"] == "test"
    assert alone["subsets"][0]["exits"] == ["exit_1", "exit_3"]
    assert set(alone["subsets"][0]) == {"exits", "macs", "params", "pareto", "test"}
    *_, told = subset_lines(alone)[-1].splitlines()
    assert told.startswith("no subset is chosen: the run held no validation split out")


def test_equal_points_are_on_the_front_together():
    front = subsets.pareto_front([1, 1, 2, 2, 1], [0.5, 0.5, 0.5, 0.6, 0.4])
    assert front.tolist() == [True, True, False, True, False]


def test_agreement_by_hand():
    sixth = 1 / 6
    found = agreement(LOGITS, LABELS)
    pairs = found.pop("disagreement")
    only = {"exit_1": sixth, "exit_2": 0.0, "exit_3": sixth}
    shares = {"all_right": sixth, "none_right": sixth, "oracle": 5 / 6}
    assert found == {**shares, "only_right": only}
    table = [list(row.values()) for row in pairs.values()]
    expected = np.array([[0, 3, 4], [3, 0, 4], [4, 4, 0]]) / 6
    np.testing.assert_allclose(table, expected)


def test_tables_and_the_choice_are_told_in_percent():
    given = LOGITS, LABELS
    measured = subsets.measure_subsets(given, COSTS, "probabilities", given)
    table, told = subset_lines(measured)
    header, _, first, *_ = (
        [cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()
    )
    kinds = ["probabilities", "logits"]
    columns = [f"{split}, {kind}" for split in ("validation", "test") for kind in kinds]
    assert header == ["exits", "MACs", "parameters", *columns, "Pareto"]
    assert first == ["2,3", "36", "72", *["66.67 %"] * 4, "*"]
    assert told.splitlines()[1] == (
        "best by validation: exits 2,3: validation 66.67 %, test 66.67 % (all exits "
        "50.00 %, standard error of the difference 15.21) for 90.0 % of the MACs of "
        "all exits"
    )
    one = {"exit_1": LOGITS["exit_1"]}
    costs = {("exit_1",): subsets.Cost(10, 20)}
    measured = subsets.measure_subsets((one, LABELS), costs, "logits", (one, LABELS))
    assert subset_lines(measured)[1].endswith("test 50.00 %; these are all exits")
    roles = {"student": agreement(LOGITS, LABELS), "teacher": agreement(one, LABELS)}
    table, student, teacher = agreement_lines(roles)
    rows = [[cell.strip() for cell in r.split("|")[1:-1]] for r in table.splitlines()]
    assert rows[0] == ["test images where", "student", "teacher"]
    assert rows[4] == ["one exit alone is right", "33.33 %", "50.00 %"]
    assert rows[7] == ["- exit 3", "16.67 %", ""]
    assert "student: two exits disagree" in student and "teacher: two" in teacher


def refused(message, function, *arguments):
    with pytest.raises(UserError, match=message) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)


def test_too_many_exits_are_refused():
    names = [f"exit_{k}" for k in range(1, 8)]
    subsets.check_count(names[:6])
    refused("6 exits at most, the student has 7: train one", subsets.check_count, names)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return run_of_two_exits(tmp_path_factory.mktemp("runs"))


@pytest.mark.run
def test_the_command_measures_what_the_run_did(trained, tmp_path):
    arguments = f"--run_dir={trained}", "--subsets", f"--output={tmp_path / 'out'}"
    done = Command("tf_mskd.evaluate", *arguments).finish()
    assert done.returncode == 0, done.stderr
    assert "best by validation: exits " in done.stdout
    assert "| test images where           | student | teacher |" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last == f"wrote subsets.json and subsets.png to {tmp_path / 'out'}"
    assert (tmp_path / "out" / "subsets.png").stat().st_size > 10_000
    measured = json.loads((tmp_path / "out" / "subsets.json").read_text())
    rows, result = by_numbers(measured), read_result(trained / "result.json")
    student = FinishedRun(trained).student()
    assert set(rows) == {"1", "2", "1,2"}
    for split, known in (("validation", result.validation), ("test", result.test)):
        for k in "12":
            assert rows[k][split]["logits"] == known[f"exit_{k}"]
        everything = rows["1,2"][split]
        assert everything["logits"] == known["ensemble"]
        assert everything["probabilities"] == known["ensemble_probabilities"]
    for key, names in (("1,2", ["exit_1", "exit_2"]), ("1", ["exit_1"])):
        assert rows[key]["macs"] == count_macs(student, names)
        assert rows[key]["params"] == sub_model(student, names).count_params()
    found = measured["agreement"]
    assert set(found) == {"student", "teacher"}
    assert found["teacher"]["all_right"] == found["teacher"]["oracle"]
    assert found["student"]["oracle"] >= max(result.test[f"exit_{k}"] for k in "12")


@pytest.mark.run
def test_a_run_without_its_teacher_or_of_another_task(trained, tmp_path, capsys):
    run = FinishedRun(trained)
    gone = {"teacher": str(tmp_path / "gone"), "validation_fraction": 0.0}
    run.config = dataclasses.replace(run.config, **gone)
    measured = evaluate_subsets(run, output=tmp_path)
    assert set(measured["agreement"]) == {"student"} and measured["best"] is None
    assert "Without the teacher: No model file at" in capsys.readouterr().out
    run.config = dataclasses.replace(run.config, task="multi_label")
    message = "answers of one class, the task of .* is 'multi_label': evaluate without"
    refused(message, evaluate_subsets, run)
