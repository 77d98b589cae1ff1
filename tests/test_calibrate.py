"""Temperatures, calibration error, threshold search and exits.json."""

import itertools
import json

import numpy as np
import pytest

from tests import reference
from tf_mskd import UserError
from tf_mskd.early_exit import thresholds
from tf_mskd.early_exit.calibration import calibrate
from tf_mskd.early_exit.criteria import CRITERIA
from tf_mskd.early_exit.exits_file import read_exits, write_exits
from tf_mskd.early_exit.outcomes import confidences, predictions
from tf_mskd.early_exit.temperature import calibration_error, fit_temperature
from tf_mskd.early_exit.thresholds import NEVER, Goal, exit_index, fit

MACS = {"exit_1": 40, "exit_2": 70, "exit_3": 100}


# ---- temperatures


@pytest.mark.parametrize("seed", range(3))
def test_temperature_against_a_grid(seed):
    logits, labels = reference.held_out(seed)
    for name, z in logits.items():
        grid = np.arange(1.0, 8.0, 0.002)
        losses = [reference.cross_entropy(labels, z / t).mean() for t in grid]
        best = grid[np.argmin(losses)]
        got = fit_temperature(z.astype(np.float32), labels)
        assert abs(got - best) < 0.002, f"{name}: {got}, by the grid {best}"


def test_temperature_scales_with_the_logits_and_keeps_its_bounds():
    logits, labels = reference.held_out()
    z = logits["exit_1"]
    np.testing.assert_allclose(
        fit_temperature(2 * z, labels), 2 * fit_temperature(z, labels), 1e-4
    )
    always_correct = np.eye(6)[labels]
    assert abs(fit_temperature(always_correct, labels) - 0.1) < 1e-3
    always_wrong = np.eye(6)[(labels + 1) % 6]
    assert abs(fit_temperature(always_wrong, labels) - 10.0) < 1e-2


def test_calibration_error_by_hand():
    # bins of width 1/15: 0.6 alone in (0.533, 0.6]; 0.90, 0.92 in (0.867, 0.933]; 1.0
    probs = np.array([[0.6, 0.4], [0.9, 0.1], [0.08, 0.92], [1.0, 0.0]])
    gaps = [abs(1 - 0.6), abs(1 - 0.9 + 0 - 0.92), abs(1 - 1.0)]
    assert abs(calibration_error(probs, [0, 0, 0, 0]) - sum(gaps) / 4) < 1e-12
    assert calibration_error(np.eye(2), [0, 1]) == 0.0
    assert calibration_error(np.eye(2), [1, 0]) == 1.0
    in_one_bin = abs(1 - 0.6 + 1 - 0.9 + 0 - 0.92 + 1 - 1.0) / 4
    assert abs(calibration_error(probs, [0] * 4, bins=1) - in_one_bin) < 1e-12


# ---- thresholds


def random_exits(seed, size=40):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(size=(2, size)).astype(np.float32)
    chances = np.array([confidence[0], 0.3 + 0.6 * confidence[1], np.full(size, 0.85)])
    return confidence, rng.uniform(size=(3, size)) < chances, [40, 70, 100]


@pytest.mark.parametrize("seed", range(4))
def test_thresholds_are_those_of_a_full_search(seed, monkeypatch):
    monkeypatch.setattr(thresholds, "CANDIDATES", 100)  # all there are
    confidence, correct, macs = random_exits(seed)
    grids = [[*np.unique(c), NEVER] for c in confidence]
    every = [
        reference.early_exits(confidence, correct, macs, t)
        for t in itertools.product(*grids)
    ]
    full = correct[-1].mean()
    goals = [Goal("max_accuracy_drop", 0.05), Goal("target_macs", 0.7)]
    cheap, exact = fit(confidence, correct, macs, goals)
    for setting in (cheap, exact):
        by_example = reference.early_exits(
            confidence, correct, macs, setting.thresholds
        )
        np.testing.assert_allclose(setting[:3], by_example, atol=1e-9)
    assert full - cheap.accuracy + cheap.error <= 0.05 + 1e-9
    assert exact.macs_fraction <= 0.7 + 1e-9
    least = min(s for a, s, error in every if full - a + error <= 0.05 + 1e-9)
    highest = max(a for a, s, error in every if s <= 0.7 + 1e-9)
    np.testing.assert_allclose([cheap.macs_fraction, exact.accuracy], [least, highest])


def test_many_exits_are_searched_block_by_block(monkeypatch):
    """Nine exits; the blocks of four come near one grid of all, of few candidates."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=(8, 500)).astype(np.float32)
    chances = [0.4 + 0.05 * k + 0.3 * confidence[min(k, 7)] for k in range(9)]
    correct, macs = rng.uniform(size=(9, 500)) < chances, np.arange(10, 100, 10)
    goals = [Goal("target_macs", fraction) for fraction in (0.3, 0.5, 0.7, 1.0)]
    monkeypatch.setattr(thresholds, "CANDIDATES", 3)
    blocks = fit(confidence, correct, macs, goals)
    monkeypatch.setattr(thresholds, "BLOCK", 8)
    everything = fit(confidence, correct, macs, goals)
    for goal, near, best in zip(goals, blocks, everything, strict=True):
        by_example = reference.early_exits(confidence, correct, macs, near.thresholds)
        np.testing.assert_allclose(near[:3], by_example, atol=1e-9)
        assert near.macs_fraction <= goal.value + 1e-9
        assert best.accuracy - 0.02 <= near.accuracy <= best.accuracy + 1e-9
    accuracies = [setting.accuracy for setting in blocks]
    assert accuracies == sorted(accuracies)


def test_a_drop_counts_with_its_standard_error():
    """100 examples, 10 wrong in the full pass; one more is wrong if half exit early."""
    confidence = np.where(np.arange(100) < 50, 0.9, 0.1)[None].astype(np.float32)
    correct = np.ones((2, 100), bool)
    correct[1, 90:] = False
    correct[0, 0] = False
    correct[0, 50:80] = False
    error = np.sqrt((0.01 - 0.01**2) / 100)  # d = -1 once, 0 elsewhere: 0.00995
    by_limit = {0.01 + error + 1e-8: 0.75, 0.01 + error - 1e-8: 1.0, 0.0: 1.0}
    for limit, fraction in by_limit.items():
        goal = Goal("max_accuracy_drop", limit)
        (setting,) = fit(confidence, correct, [50, 100], [goal])
        assert setting.macs_fraction == fraction, f"{limit}: {setting}"
    (setting,) = fit(confidence, correct, [50, 100], [Goal("max_accuracy_drop", 0.02)])
    np.testing.assert_allclose(setting[:3], (0.89, 0.75, error))


def test_exit_indices_compare_as_float32():
    confidence = np.float32([[0.1, 0.7]])
    assert exit_index(confidence, [float(np.float32(0.7))]).tolist() == [1, 0]
    assert exit_index(confidence, [0.7]).tolist() == [1, 0]  # in float64 it is below
    assert exit_index(confidence, [0.0]).tolist() == [0, 0]
    assert exit_index(np.ones((2, 2)), [NEVER, NEVER]).tolist() == [2, 2]


def test_each_example_may_have_thresholds_of_its_own_and_one_exit_needs_none():
    limits = [[0.5, NEVER], [0.0, 0.9]]
    assert exit_index([[0.5, 0.5], [0.1, 0.8]], limits).tolist() == [0, 2]
    assert exit_index(np.zeros((0, 3)), []).tolist() == [0, 0, 0]


def test_neighbours_in_float32_are_told_apart():
    low = np.float32(0.5)
    confidence = np.array([[low, np.nextafter(low, np.float32(1))]])
    correct = np.array([[False, True], [True, True]])
    (setting,) = fit(confidence, correct, [50, 100], [Goal("max_accuracy_drop", 0.0)])
    assert setting[:2] == (1.0, 0.75)


# ---- calibrate


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("answer", ["ensemble", "exit"])
def test_the_target_is_met_on_the_examples_it_is_fitted_to(criterion, answer):
    logits, labels = reference.held_out()
    for target in ({"max_accuracy_drop": 1.0}, {"target_macs": 0.6}):
        fitted = calibrate(logits, labels, MACS, criterion, answer, **target)
        probs = predictions(logits, fitted["temperatures"], answer)
        correct = np.array([p.argmax(-1) == labels for p in probs])
        confidence, macs = confidences(criterion, probs), list(MACS.values())
        limits = list(fitted["thresholds"].values())
        measured = reference.early_exits(confidence, correct, macs, limits)
        accuracy, fraction, error = measured
        found = fitted["validation"]
        assert abs(accuracy - found["accuracy"]) < 1e-9
        assert abs(fraction - found["macs_fraction"]) < 1e-9
        assert abs(error - found["standard_error"]) < 1e-9
        assert abs(found["mean_macs"] - 100 * fraction) < 1e-6
        assert abs(found["full_accuracy"] - correct[-1].mean()) < 1e-9
        assert abs(sum(found["exit_rates"].values()) - 1) < 1e-9
        assert fitted["target"] == {**target, "met": True}
        assert fitted["criterion"] == criterion and limits[-1] == 0.0
        if "target_macs" in target:
            assert fraction <= 0.6 + 1e-9
        else:
            assert found["full_accuracy"] - accuracy + error <= 0.01 + 1e-9
            assert fraction <= 1.0


def test_early_exits_by_confidence_beat_random_ones():
    logits, labels = reference.held_out()
    fitted = calibrate(logits, labels, MACS, target_macs=0.7)
    per_exit = [np.mean(z.argmax(-1) == labels) for z in logits.values()]
    at_random = np.interp(70, [40, 70, 100], per_exit)
    assert fitted["validation"]["accuracy"] > at_random + 0.02


def test_the_curve_has_20_budgets_that_hold_and_never_fall():
    fitted = calibrate(*reference.held_out(), MACS)
    curve = fitted["curve"]
    assert len(curve) == 20
    assert abs(curve[0]["budget"] - 0.4) < 1e-9 and curve[-1]["budget"] == 1.0
    assert all(point["macs_fraction"] <= point["budget"] + 1e-9 for point in curve)
    accuracies = [point["accuracy"] for point in curve]
    assert accuracies == sorted(accuracies)
    assert curve[-1]["accuracy"] >= fitted["validation"]["full_accuracy"]


def test_best_takes_the_criterion_that_reaches_the_target_cheapest():
    fitted = calibrate(*reference.held_out(), MACS, max_accuracy_drop=0.5)
    fractions = {name: row["macs_fraction"] for name, row in fitted["criteria"].items()}
    assert list(fractions) == list(CRITERIA)
    assert fitted["criterion"] == min(fractions, key=fractions.get)
    assert fitted["validation"]["macs_fraction"] == min(fractions.values())
    fitted = calibrate(*reference.held_out(), MACS, target_macs=0.55)
    rows = {name: row["accuracy"] for name, row in fitted["criteria"].items()}
    assert fitted["validation"]["accuracy"] == max(rows.values())


def test_a_target_out_of_reach_gives_the_nearest():
    fitted = calibrate(*reference.held_out(), MACS, target_macs=0.1)
    assert fitted["target"] == {"target_macs": 0.1, "met": False}
    assert abs(fitted["validation"]["macs_fraction"] - 0.4) < 1e-9
    assert fitted["validation"]["exit_rates"]["exit_1"] == 1.0


def test_temperatures_mend_overconfident_exits():
    errors = calibrate(*reference.held_out(), MACS)["calibration_error"]
    assert list(errors) == ["exit_1", "exit_2", "exit_3", "ensemble"]
    for name in MACS:
        assert errors[name]["after"] < 0.5 * errors[name]["before"], f"{name}: {errors}"


def test_calibrate_repeats():
    assert calibrate(*reference.held_out(), MACS) == calibrate(
        *reference.held_out(), MACS
    )


LOGITS, LABELS = reference.held_out(size=20)
REFUSED = [
    ({"criterion": "margins"}, "Unknown exit criterion 'margins'; .* 'margin'.*best"),
    ({"answer": "ensembles"}, "Unknown answer 'ensembles'; .* 'ensemble'"),
    ({"max_accuracy_drop": 1.0, "target_macs": 0.5}, "two targets: give one"),
    ({"max_accuracy_drop": -1.0}, r"at least 0; got -1\.0"),
    ({"max_accuracy_drop": float("nan")}, "at least 0; got nan"),
    ({"target_macs": 0.0}, r"in \(0, 1\]; got 0\.0"),
    ({"target_macs": 1.5}, r"in \(0, 1\]; got 1\.5"),
    ({"logits": {"exit_1": LOGITS["exit_1"]}}, r"two exits or more, got \['exit_1'\]"),
    ({"macs": {"exit_1": 1}}, "given for exit_1, exit_2, exit_3, got exit_1"),
    ({"labels": LABELS[:3]}, r"'exit_1' must be .* for 3 labels, N > 0; got \(20, 6\)"),
    ({"logits": {**LOGITS, "exit_2": LOGITS["exit_2"] * np.nan}}, "'exit_2' .*finite"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_calibrate_refuses(change, message):
    arguments = {"logits": LOGITS, "labels": LABELS, "macs": MACS, **change}
    with pytest.raises(UserError, match=message) as caught:
        calibrate(**arguments)
    assert str(caught.value).isprintable()


# ---- exits.json


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "exits.json"
    fitted = calibrate(LOGITS, LABELS, MACS)
    write_exits(path, "a" * 64, fitted)
    return path, fitted


def test_exits_json_reads_back(written):
    path, fitted = written
    expected = {"format": 2, "student": "a" * 64, **fitted}
    assert read_exits(path, "a" * 64) == expected


def test_exits_of_another_student_are_refused(written):
    with pytest.raises(UserError, match="another student .aaaaaaaaaaaa instead of bbb"):
        read_exits(written[0], "b" * 64)


DAMAGED = [
    ({"format": 1}, "has format 1, this version reads 2: run tf_mskd.calibrate again"),
    ({"format": None}, 'damaged: it has no valid "format"'),
    ({"student": None}, '"student"'),
    ({"criterion": "softmax"}, "Unknown criterion in .*json 'softmax'.*Known: entropy"),
    ({"criterion": ["margin"]}, r"Unknown criterion in .*exits.json \['margin'\]"),
    ({"answer": "all"}, "Unknown answer in .*exits.json 'all'.*Known: ensemble, exit"),
    ({"temperatures": [1.0]}, '"temperatures"'),
    ({"temperatures": {}}, '"temperatures"'),
    ({"temperatures": {"exit_1": 1.0, "exit_2": 0.0}}, '"temperatures"'),
    ({"temperatures": {"exit_1": 1.0, "exit_2": 10**400}}, '"temperatures"'),
    ({"temperatures": {"exit_2": 1.0, "exit_1": 1.0}}, '"temperatures"'),
    ({"thresholds": None}, '"thresholds"'),
    ({"thresholds": {"exit_1": 0.5, "exit_2": 0.0}}, '"thresholds"'),
    ({"thresholds": {"exit_1": True, "exit_2": 0.5, "exit_3": 0}}, '"thresholds"'),
    ({"thresholds": {"exit_1": np.nan, "exit_2": 0.5, "exit_3": 0}}, '"thresholds"'),
    ({"thresholds": {"exit_1": -1.0, "exit_2": 0.5, "exit_3": 0}}, '"thresholds"'),
    ({"thresholds": {"exit_1": 0.5, "exit_2": 0.5, "exit_3": 0.5}}, '"thresholds"'),
    ({"curve": {}}, '"curve"'),
    ({"curve": [1]}, '"curve"'),
    ({"curve": [{"budget": 0.5}]}, '"curve"'),
    ({"curve": [{"thresholds": {"exit_1": 1, "exit_2": 1, "exit_3": 0}}]}, '"curve"'),
]


@pytest.mark.parametrize(("change", "message"), DAMAGED)
def test_damaged_exits_are_refused(written, change, message):
    path, _ = written
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message) as caught:
        read_exits(path, "a" * 64)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["", "{", "null", "[1]", "{}", "[" * 100_000, "\0"])
def test_hostile_exits_are_refused(written, text):
    written[0].write_text(text)
    with pytest.raises(UserError, match="exits.json is damaged") as caught:
        read_exits(written[0], "a" * 64)
    assert str(caught.value).isprintable()
