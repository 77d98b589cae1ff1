"""The published figures: complete, reproducible by flags, and found for a run."""

import collections
import dataclasses
import json
import pathlib
import types

import pytest
from absl import flags

from tf_mskd import report
from tf_mskd.runs.flags import read_flags, to_flagfile
from tf_mskd.runs.published import HEADER, describe, read_figures, rows_of
from tf_mskd.runs.result import Result, write_result
from tf_mskd.utils.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
PAIR = "configs/pairs/cifar100_vgg13_vgg8.flags"
EXITS = {f"exit_{k}": 0.7 + k / 100 for k in (1, 2, 3, 4)}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def finished(folder, arguments, test, teacher="vgg13"):
    """Writes the folder of a finished run with these flags; returns its path."""
    config = read_flags(arguments)
    folder.mkdir(parents=True)
    (folder / "flags.txt").write_text(to_flagfile(config))
    names = {f.name for f in dataclasses.fields(Result)} & vars(config).keys()
    macs = dict.fromkeys([*EXITS, "ensemble"], 1)
    values = {name: getattr(config, name) for name in names} | {"teacher": teacher}
    values |= {"train_examples": 1, "params": 1, "macs": macs, "seconds": 1.0}
    write_result(folder / "result.json", Result(**values, test=test))
    return str(folder)


def cell(method, *more):
    return [f"--flagfile={PAIR}", f"--flagfile=configs/methods/{method}.flags", *more]


def test_all_figures_of_the_tables_are_there():
    figures = read_figures()
    cells = [f for f in figures if not f.exit.startswith("exit_")]
    counts = collections.Counter((f.table, ":" in f.pair) for f in cells)
    assert counts[("cifar100", True)] == 17 * 7
    assert counts[("tiny_imagenet", True)] == 11 * 2
    assert counts[("imagenet2012", True)] == 4
    tables = "cifar100", "tiny_imagenet", "imagenet2012"
    assert [counts[(table, False)] for table in tables] == [6, 2, 3]
    exits = collections.Counter(f.pair for f in figures if f not in cells)
    assert set(exits.values()) == {4}
    assert len(exits) == 8
    assert len({(f.table, f.method, f.pair, f.exit) for f in figures}) == len(figures)
    assert all(0.5 < f.value < 0.9 and f.source for f in figures)


def test_every_figure_has_flags_that_repeat_it():
    figures = {(f.table, f.pair, f.method): f for f in read_figures()}
    assert len(figures) == 17 * 7 + 11 * 2 + 4 + 11
    for figure in figures.values():
        config = read_flags(figure.flags)
        teacher, _, student = figure.pair.rpartition(":")
        assert (config.dataset, config.model) == (figure.table, student)
        if config.teacher_flagfile:
            first = read_flags([f"--flagfile={config.teacher_flagfile}"])
            assert first.model == teacher, figure


def test_a_distillation_with_kd_has_the_teacher_and_its_loss():
    (figure,) = (
        f for f in read_figures() if (f.method, f.pair[:5]) == ("ab,kd", "vgg13")
    )
    config = read_flags(figure.flags)
    assert (config.method, config.init_stage) == ("ce,kd", "ab")
    assert config.term_weights == {"kd": 1.0}
    assert config.teacher_flagfile == "configs/cifar100/vgg13.flags"


def test_a_run_stands_beside_its_figures(tmp_path):
    test = {**EXITS, "ensemble": 0.7654}
    run = finished(tmp_path / "mine", cell("oto", "--seed=3"), test)
    rows = rows_of([run])
    assert rows[0] == HEADER
    start = [run, "oto", "vgg13:vgg8"]
    assert rows[1] == [*start, "ensemble", "76.27", "76.54", ""]
    assert rows[2] == [*start, "exit 1", "71.17", "71.00", ""]
    assert [row[4:6] for row in rows[3:]] == [
        ["70.59", "72.00"],
        ["71.10", "73.00"],
        ["72.65", "74.00"],
    ]


@pytest.mark.parametrize(
    ("arguments", "row"),
    [
        (cell("kd"), ["kd", "vgg13:vgg8", "last", "72.98", "74.00", ""]),
        (
            cell("kd", "--epochs=5", "--width=0.25"),
            ["kd", "vgg13:vgg8", "last", "72.98", "74.00", "width, epochs"],
        ),
        (
            cell("at", "--method=at,kd", "--term_weights=kd:1"),
            ["at,kd", "vgg13:vgg8", "last", "73.48", "74.00", ""],
        ),
        (
            ["--flagfile=configs/cifar100/vgg8.flags"],
            ["ce", "vgg8", "last", "70.36", "74.00", ""],
        ),
    ],
)
def test_the_last_exit_stands_beside_a_figure_of_one_exit(arguments, row, tmp_path):
    teacher = None if row[0] == "ce" else "vgg13"
    test = {"exit_4": 0.74, "ensemble": 0.74}
    run = finished(tmp_path / "a", arguments, test, teacher)
    assert rows_of([run])[1:] == [[run, *row]]


def test_a_student_in_two_stages_is_known_by_the_teacher_of_the_first(tmp_path):
    pair = "configs/pairs/cifar100_resnet50_resnet18.flags"
    arguments = [f"--flagfile={pair}", "--flagfile=configs/methods/ab_two_stage.flags"]
    run = finished(tmp_path / "a", arguments, {"exit_4": 0.5, "ensemble": 0.5}, None)
    row = ["ab", "resnet50:resnet18", "last", "76.77", "50.00", ""]
    assert rows_of([run])[1:] == [[run, *row]]


def test_a_teacher_of_published_weights_is_what_differs(tmp_path):
    path = "configs/imagenet2012/dkd_resnet50_mobilenet_v1.flags"
    test = {"exit_4": 0.5, "ensemble": 0.5}
    run = finished(tmp_path / "a", [f"--flagfile={path}"], test, "resnet50")
    row = ["dkd_imagenet_mobilenet", "resnet50:mobilenet_v1", "last", "72.05", "50.00"]
    assert rows_of([run])[1:] == [[run, *row, "teacher, teacher_flagfile"]]


def test_autoaugment_makes_it_oto_star(tmp_path):
    test = {**EXITS, "ensemble": 0.7}
    run = finished(tmp_path / "a", cell("oto_star"), test)
    row = ["oto_star", "vgg13:vgg8", "ensemble", "76.36", "70.00", ""]
    assert rows_of([run])[1:] == [[run, *row]]


@pytest.mark.parametrize(
    "arguments",
    [
        cell("dkd"),
        cell("fitnet_two_stage"),
        ["--flagfile=configs/digits/pair.flags", "--flagfile=configs/methods/kd.flags"],
    ],
)
def test_a_run_without_published_figures_is_named(arguments, tmp_path):
    test = {"exit_4": 0.74, "ensemble": 0.74}
    run = finished(tmp_path / "a", arguments, test)
    assert rows_of([run]) == [HEADER]
    assert describe([run]) == f"No published figures for {run}."


def test_the_command_prints_figures_and_names_runs_without(
    tmp_path, capsys, monkeypatch
):
    test = {"exit_4": 0.74, "ensemble": 0.74}
    runs = [finished(tmp_path / name, cell(name), test) for name in ("kd", "dkd")]
    for run in runs:
        epoch = {"epoch": 1, "ensemble_accuracy": 0.5}
        (pathlib.Path(run) / "metrics.jsonl").write_text(json.dumps(epoch) + "\n")
    values = types.SimpleNamespace(run_dirs=runs, output="", published=True)
    values.group_seeds = True  # of which each of these has one
    values.against, values.cost_of, values.common_seeds = "", "", False
    monkeypatch.setattr(flags, "FLAGS", values)
    report.main()
    printed = capsys.readouterr().out.splitlines()
    (line,) = [line for line in printed if "vgg13:vgg8" in line]
    assert [part.strip() for part in line.strip("|").split("|")] == [
        runs[0],
        *("kd", "vgg13:vgg8", "last", "72.98", "74.00", ""),
    ]
    assert printed[-1] == f"No published figures for {runs[1]}."


def test_damaged_and_missing_figures_are_refused(tmp_path):
    with pytest.raises(UserError, match="No published figures 'nowhere.csv'"):
        read_figures("nowhere.csv")
    path = tmp_path / "p.csv"
    for line in ("cifar100,kd,a:b,last,much,here", "cifar100,kd"):
        path.write_text(f"table,method,pair,exit,value,source\n{line}\n")
        with pytest.raises(UserError, match="p.csv is damaged: each line is table,"):
            read_figures(path)
