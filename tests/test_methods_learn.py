"""Every method, from its flagfile, on real digits: far above chance, its terms fall."""

import dataclasses
import json
import pathlib

import pytest

from tf_mskd.methods.common.registry import available_methods
from tf_mskd.runs import experiment
from tf_mskd.runs.flags import read_flagfile, to_flagfile

ROOT = pathlib.Path(__file__).parents[1]
SMALL = {"tensorboard": False, "epochs": 4, "train_fraction": 0.5, "width": 0.125}
FIRST = {  # what a method wants done first: role -> the method of that run
    "ft": ("teacher", "paraphraser"),
    "sskd": ("teacher", "sskd_teacher"),
    "hsakd": ("teacher", "hsakd_teacher"),
    "oto": ("teacher", "ce"),
}
ALONE = ("paraphraser", "sskd_teacher", "hsakd_teacher")  # they train no exit
STARTS = {"ab": "ce"}  # they only initialise a student, which the other method trains
RISING = {"dbt": "its temperature rises, and the entropy of soft labels with it"}
ARGUMENTS = {"crd": "num_negatives=256", "sskd": "crop_padding=1"}
ARGUMENTS["sskd_teacher"] = "crop_padding=1"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("learn")


def settings(folder, name, *flagfiles, **changes):
    """The configuration of flagfiles behind the digits pair, written as a flagfile."""
    path = folder / f"{name}.flags"
    lines = ["configs/digits/pair.flags", *flagfiles]
    path.write_text("".join(f"--flagfile={line}\n" for line in lines))
    config = dataclasses.replace(read_flagfile(path), **{**SMALL, **changes})
    path.write_text(to_flagfile(config))
    return path, config


def flagfile_of(name):
    return f"configs/methods/{name}.flags"


@pytest.mark.parametrize("name", available_methods())
def test_it_learns(name, folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    plain = {"teacher_flagfile": "", "width": 0.125}
    teacher, _ = settings(folder, "teacher", flagfile_of("ce"), **plain)
    changes = {"teacher_flagfile": str(teacher), "method_args": ARGUMENTS.get(name, "")}
    if name in FIRST:
        role, first = FIRST[name]
        changes[f"{role}_flagfile"] = str(first_run(folder, teacher, first))
    if name in ALONE:
        config = read_flagfile(first_run(folder, teacher, name))
    else:
        path, config = settings(folder, name, flagfile_of(name), **changes)
    if name in STARTS:
        after = {"init_flagfile": str(path), "teacher_flagfile": ""}
        flags = flagfile_of(STARTS[name])
        _, config = settings(folder, f"after_{name}", flags, **after)
    run_dir = folder / f"run_{name}"
    result = experiment.run(dataclasses.replace(config, run_dir=str(run_dir)))
    measured = folder / name if name in STARTS else run_dir
    lines = (measured / "metrics.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert result.test["ensemble"] > 0.6, f"{name}: {result.test}"
    terms = [n for n in first if "/" in n and not n.startswith("ce/")]
    if terms and name not in RISING:
        before, after = (sum(line[n] for n in terms) for line in (first, last))
        assert after < before, f"{name}: distillation went from {before} to {after}"


def first_run(folder, teacher, method):
    """The flagfile of heads on the frozen teacher."""
    changes = {"teacher_flagfile": "", "init_flagfile": str(teacher)}
    changes |= {"freeze": "backbone", "epochs": 2}
    name = f"teacher_{method}"
    path, _ = settings(folder, name, flagfile_of(method), exits="all", **changes)
    return path
