"""Rows of seeds side by side: differences by seed, what training costs, mistakes."""

import dataclasses
import json
import types

import numpy as np
import pytest
from absl import flags
from scipy import stats

from tests.report_folders import finished, seeded
from tf_mskd import report
from tf_mskd.runs.comparison import read_runs
from tf_mskd.runs.paired import Difference, paired_with, t_interval
from tf_mskd.runs.report_tables import paired_rows
from tf_mskd.runs.seeds import group_seeds
from tf_mskd.runs.training_cost import plain_student, training_cost, training_seconds
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.run_paths import RunPaths


def rows(*groups):
    """The rows of run folders."""
    return group_seeds(read_runs([folder for group in groups for folder in group]))


# ---- intervals


@pytest.mark.parametrize(
    ("count", "quantile"),  # of the printed tables of Student's t, both sides, 95 %
    [(2, 12.706), (3, 4.303), (4, 3.182), (5, 2.776), (10, 2.262), (31, 2.042)],
)
def test_the_interval_is_that_of_students_t(count, quantile):
    values = np.random.default_rng(count).normal(0.5, 0.1, count)
    low, high = t_interval(list(values))
    half = np.std(values, ddof=1) / np.sqrt(count)
    np.testing.assert_allclose((high - low) / 2, quantile * half, rtol=3e-4)
    exact = stats.t.interval(0.95, count - 1, np.mean(values), stats.sem(values))
    np.testing.assert_allclose((low, high), exact, rtol=1e-12)


def test_three_differences_by_hand(tmp_path):
    """0.01, 0.02, 0.06: mean 0.03, variance (4 + 1 + 9) / 2 = 7 in 1e-4."""
    base = seeded(tmp_path, (0.50, 0.52, 0.57), "student")
    other = seeded(tmp_path, (0.51, 0.54, 0.63), "kd", lr=0.2)
    shown = rows(base, other)
    paired = paired_with(shown, "student")
    assert paired.against == "student_seed*" and paired.best == {}
    difference = paired.last["kd_seed*"]
    assert difference.seeds == (0, 1, 2)
    np.testing.assert_allclose(difference.values, [0.01, 0.02, 0.06], atol=1e-15)
    half = 4.302652729911275 * np.sqrt(7e-4 / 3)
    expected = [0.03, 0.03 - half, 0.03 + half]
    found = [difference.mean, difference.low, difference.high]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert paired_rows(shown[paired.against].result, paired) == [
        ["row", "epoch", "seeds", "accuracy (points)", "95 % interval", "claim"],
        ["kd_seed*", "last", "3", "+3.00", "-3.57 to +9.57", "not told apart"],
    ]


@pytest.mark.parametrize(
    ("values", "claim"),
    [
        ((0.01, 0.01, 0.01), "better"),
        ((0.01, 0.02, 0.015), "better"),
        ((-0.01, -0.02, -0.015), "worse"),
        ((0.0, 0.0, 0.0), "not told apart"),
        ((0.01, -0.01, 0.01), "not told apart"),
        ((0.001, 0.03, 0.03), "not told apart"),  # each seed is better
    ],
)
def test_a_claim_needs_an_interval_without_zero(values, claim):
    assert Difference((0, 1, 2), values, *t_interval(values)).claim == claim


def test_seeds_are_paired_by_their_number_not_their_order(tmp_path):
    base = seeded(tmp_path, (0.5, 0.6, 0.7), "a", [10, 2, 1])
    other = seeded(tmp_path, (0.72, 0.51, 0.61), "b", [1, 10, 2], lr=0.2)
    difference = paired_with(rows(base, other), "a").last["b_seed*"]
    assert difference.seeds == (1, 2, 10)
    np.testing.assert_allclose(difference.values, [0.02, 0.01, 0.01], atol=1e-15)


def test_the_best_epochs_are_paired_too(tmp_path):
    def best(value):
        return {"test_best": {"exit_1": value, "exit_2": 0.5, "ensemble": value}}

    shown = rows(
        seeded(tmp_path, (0.5, 0.5), "a", result=best(0.25)),
        seeded(tmp_path, (0.5, 0.5), "b", result=best(0.75), lr=0.2),
        seeded(tmp_path, (0.5, 0.5), "c", lr=0.3),
    )
    paired = paired_with(shown, "a")
    assert list(paired.last) == ["b_seed*", "c_seed*"]
    assert paired.best["b_seed*"].values == (0.5, 0.5) and len(paired.best) == 1


def test_one_exit_is_compared_with_an_ensemble(tmp_path):
    single = seeded(tmp_path, (0.5, 0.5), "a")
    for folder in single:
        path = RunPaths(folder).result
        test = {"exit_4": 0.25, "ensemble": 0.25}
        content = {**json.loads(path.read_text()), "test": test}
        path.write_text(json.dumps(content), encoding="utf-8")
    shown = rows(single, seeded(tmp_path, (0.5, 0.5), "b", lr=0.2))
    np.testing.assert_allclose(paired_with(shown, "a").last["b_seed*"].values, 0.35)


# ---- mistakes


def test_seeds_that_one_row_lacks_are_named(tmp_path):
    shown = rows(
        seeded(tmp_path, (0.5,) * 4, "a", [0, 1, 2, 5]),
        seeded(tmp_path, (0.5,) * 3, "b", [0, 1, 7], lr=0.2),
    )
    message = (
        r"^b_seed\* lacks the seeds 2, 5 of a_seed\*, a_seed\* lacks the seed 7 of "
        r"b_seed\*: train .* --common_seeds\.$"
    )
    with pytest.raises(UserError, match=message):
        paired_with(shown, "a")
    assert paired_with(shown, "a", common_seeds=True).last["b_seed*"].seeds == (0, 1)


def test_too_few_common_seeds_have_no_interval(tmp_path):
    shown = rows(
        seeded(tmp_path, (0.5, 0.5), "a"),
        seeded(tmp_path, (0.5, 0.5), "b", lr=0.2),
        seeded(tmp_path, (0.6,), "teacher", lr=0.3),
        seeded(tmp_path, (0.6,), "other", [9], lr=0.4),
    )
    paired = paired_with(shown, "a", common_seeds=True)
    found = {row[0]: row[2:] for row in paired_rows(shown["a_seed*"].result, paired)}
    assert found["teacher_seed0"] == ["1", "+10.00", "", "too few seeds"]
    assert found["other_seed9"] == ["0", "", "", "too few seeds"]


@pytest.mark.parametrize("common", [False, True])
def test_an_interval_needs_two_seeds(tmp_path, common):
    shown = rows(seeded(tmp_path, (0.5,), "a"), seeded(tmp_path, (0.5,), "b", lr=0.2))
    message = "--against=a_seed0 needs two seeds or more that a_seed0 shares with ano"
    with pytest.raises(UserError, match=message):
        paired_with(shown, "a_seed0", common)


def test_a_row_is_found_by_its_name_or_refused(tmp_path):
    kd = seeded(tmp_path, (0.5, 0.5), "kd")
    shown = rows(kd, seeded(tmp_path, (0.5, 0.5), "mskd", lr=0.2))
    for text in ("kd", "kd_seed*"):
        assert paired_with(shown, text).against == "kd_seed*"
    message = r"Unknown row of --against 'mksd'; did you mean 'mskd_seed\*'\? Known: kd"
    with pytest.raises(UserError, match=message):
        paired_with(shown, "mksd")
    with pytest.raises(UserError, match="Unknown row of --cost_of 'x'"):
        training_cost(shown, "x")
    several = {"kd_*": shown["kd_seed*"], "kd_seed*": shown["mskd_seed*"]}
    with pytest.raises(UserError, match=r"--against=kd may be kd_\* or kd_seed\*: nam"):
        paired_with(several, "kd")
    with pytest.raises(UserError, match="--against=kd needs a second row to compare"):
        paired_with(rows(kd), "kd")


@pytest.mark.parametrize(
    ("result", "settings", "message"),
    [
        ({"metric": "map"}, {}, "the figure is 'map' and 'accuracy'"),
        ({}, {"dataset": "cifar100"}, "the data set is 'cifar100' and 'digits'"),
    ],
)
def test_what_measures_other_things_is_not_compared(
    tmp_path, result, settings, message
):
    shown = rows(
        seeded(tmp_path, (0.5, 0.5), "a"),
        seeded(tmp_path, (0.5, 0.5), "b", result=result, lr=0.2, **settings),
    )
    with pytest.raises(UserError, match=rf"b_seed\* and a_seed\* cannot .*{message}: "):
        paired_with(shown, "a")


@pytest.mark.parametrize("paths", [["a/mskd_0", "a/mskd_1"], ["seed0/kd", "seed1/kd"]])
def test_one_name_of_two_recipes_is_refused(tmp_path, paths):
    """By folders, or by paths where the folders have one name."""
    folders = []
    for seed, path in enumerate(paths):
        made = seeded(tmp_path / f"made{seed}", (0.5,), "x", [seed], lr=0.1 + seed)[0]
        (tmp_path / path).parent.mkdir(exist_ok=True)
        folders.append(made.rename(tmp_path / path))
    message = (
        f"{paths[0]} and .*{paths[1]} are one recipe by their names, but differ in "
        r"--lr \(was 0.1, now 1.1\): rename one"
    ).replace("a/", "")
    with pytest.raises(UserError, match=message):
        group_seeds(read_runs(folders))


def test_a_run_with_a_cache_is_of_the_recipe_of_its_views(tmp_path):
    cached = {"teacher_cache": "rows", "teacher_flagfile": "t.flags"}
    live = {"cached_augmentations": 8, "teacher_flagfile": "t.flags"}
    folders = [
        *seeded(tmp_path / "a", (0.5,), "kd", [0], **cached),
        *seeded(tmp_path / "b", (0.5,), "kd", [1], view_seed=0, **live),
    ]
    assert len(group_seeds(read_runs(folders))) == 1
    other = seeded(tmp_path / "c", (0.5,), "oto", [2], view_seed=1, **live)
    assert len(group_seeds(read_runs([*folders, *other]))) == 2


def test_names_without_their_seed_are_no_one_recipe(tmp_path):
    """kd_1 and kd_2 of seed 0 are two recipes, as a person has numbered them."""
    folders = []
    for number in (1, 2):
        made = seeded(tmp_path / f"made{number}", (0.5,), lr=float(number))[0]
        folders.append(made.rename(tmp_path / f"kd_{number}"))
    assert list(group_seeds(read_runs(folders))) == ["kd_1", "kd_2"]


def test_logs_of_other_lengths_are_refused(tmp_path):
    folders = seeded(tmp_path, (0.5, 0.5))
    path = RunPaths(folders[1]).history
    path.write_text(path.read_text().splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="other epochs: kd_seed0 2, kd_seed1 1"):
        group_seeds(read_runs(folders))


def test_a_result_of_another_version_is_refused(tmp_path):
    (folder,) = seeded(tmp_path, (0.5,))
    path = RunPaths(folder).result
    content = {**json.loads(path.read_text()), "format": 3}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match="result.json has format 3, this version reads"):
        read_runs([folder])


# ---- the command


def command(monkeypatch, **values):
    """Runs the command with some flags, the others at their defaults."""
    usual = {"output": "", "group_seeds": None, "against": "", "common_seeds": False}
    usual |= {"cost_of": "", "published": False}
    monkeypatch.setattr(flags, "FLAGS", types.SimpleNamespace(**{**usual, **values}))
    report.main()


def test_the_command_compares_with_a_row(tmp_path, monkeypatch, capsys):
    seeded(tmp_path, name="student")
    seeded(tmp_path, (0.51, 0.53, 0.58), "kd", result={"method": "kd"}, method="kd")
    command(monkeypatch, run_dirs=[str(tmp_path)], against="student")
    printed = capsys.readouterr().out
    assert "Paired differences from student_seed*" in printed
    (line,) = [line for line in printed.splitlines() if "better" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["kd_seed*", "last", "3", "+1.00", "+1.00 to +1.00", "better"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"against": "a", "group_seeds": False}, "leave out --group_seeds=false"),
        ({"common_seeds": True}, "--common_seeds needs --against=ROW"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(monkeypatch, values, message):
    with pytest.raises(UserError, match=message):
        command(monkeypatch, run_dirs=["x"], **values)


# ---- what training costs


def timed(folder, method, seconds, **result):
    values = {"method": method, **result}
    test = {"exit_1": 0.5, "exit_2": 0.5, "ensemble": 0.5}
    phases = [1] * len(seconds)
    logs = {"ensemble_accuracy": [0.5] * len(seconds), "phase": phases}
    finished(folder, test, values, **logs, seconds=seconds)


def test_the_first_epoch_of_a_phase_builds_the_graph():
    def logs(*seconds, phase=1):
        return [{"phase": phase, "seconds": value} for value in seconds]

    assert training_seconds(logs(9.0, 1.0, 3.0, 2.0)) == 4 * 2.0
    assert training_seconds(logs(9.0, 1.0) + logs(8.0, 2.0, phase=2)) == 2.0 + 4.0
    assert training_seconds(logs(5.0)) == 5.0
    assert training_seconds([*logs(5.0, 1.0), {"phase": 1}]) is None


def test_cost_is_a_multiple_of_the_student_alone(tmp_path):
    """2 seconds an epoch for 4 epochs, against 3 and 0.5 seconds."""
    timed(tmp_path / "student", "ce", [9.0, 2.0, 2.0, 2.0])
    timed(tmp_path / "kd", "kd", [9.0, 3.0, 3.0, 3.0])
    timed(tmp_path / "teacher", "ce", [9.0, 0.5, 0.5, 0.5], model="resnet18")
    runs = read_runs([tmp_path])
    cost = training_cost(runs)
    assert cost.of == "student"
    assert cost.ratios == {"kd": 1.5, "student": 1.0, "teacher": 0.25}
    assert training_cost(runs, "kd").ratios["teacher"] == 0.5 / 3
    header, *found = report.sections(report.Report(runs, runs, cost))[0].rows
    place = header.index("cost")
    assert [row[place] for row in found] == ["1.50", "1.00", "0.25"]


def test_the_cost_of_seeds_is_their_mean(tmp_path):
    folders = seeded(tmp_path, (0.5, 0.5), "a"), seeded(tmp_path, (0.5,), "b", lr=0.2)
    for seconds, folder in zip((1.0, 3.0, 1.0), sum(folders, []), strict=True):
        path = RunPaths(folder).history
        logs = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [json.dumps({**log, "seconds": seconds}) for log in logs]
        path.write_text("\n".join(lines), encoding="utf-8")
    assert training_cost(rows(*folders), "b_seed0").ratios == {
        "a_seed*": 2,
        "b_seed0": 1,
    }


def test_the_student_alone_is_one_that_is_sure(tmp_path):
    timed(tmp_path / "kd", "kd", [1.0])
    runs = read_runs([tmp_path])
    assert plain_student(runs) is None and training_cost(runs) is None

    def with_rows(**others):
        run = runs["kd"]
        made = {
            name: dataclasses.replace(run.result, method="ce", **values)
            for name, values in others.items()
        }
        return {"kd": run} | {
            name: dataclasses.replace(run, result=result)
            for name, result in made.items()
        }

    alone = {"test": {"exit_2": 0.5, "ensemble": 0.5}}
    assert plain_student(with_rows(a={})) == "a"
    assert plain_student(with_rows(a={}, b={})) is None
    assert plain_student(with_rows(a={}, b=alone)) == "b"
    assert plain_student(with_rows(a={"model": "vgg8"})) is None
    assert plain_student(with_rows(a={"params": 10**9})) is None


def test_a_cost_that_no_log_holds_is_refused(tmp_path):
    seeded(tmp_path, (0.5,), "a")
    message = "--cost_of=a_seed0: the logs of a_seed0 hold no seconds"
    with pytest.raises(UserError, match=message):
        training_cost(read_runs([tmp_path]), "a_seed0")
