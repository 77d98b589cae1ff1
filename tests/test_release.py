"""Runs packed for others: what is in a release, what is not, and every mistake."""

import dataclasses
import doctest
import hashlib
import json
import os
import re
import shutil
import sys
import types
import zipfile

import keras
import numpy as np
import pytest

from tests.report_folders import seeded
from tests.support import OWN
from tf_mskd.models.saving import load_model
from tf_mskd.runs import experiment
from tf_mskd.runs.comparison import find_runs, read_runs
from tf_mskd.runs.config import Config
from tf_mskd.runs.evaluation import evaluate_run
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.runs.flags import read_flagfile, to_flagfile
from tf_mskd.runs.result import read_result, write_result
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.files import write_json
from tf_mskd.utils.run_paths import RunPaths
from tools import release, release_card, release_files, release_networks, release_runs

NAMES = ["kd_0", "kd_1", "teacher"]
TITLE = 'Small: "digits"'


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a teacher, and of a student of it under two seeds."""
    root = tmp_path_factory.mktemp("study")
    experiment.run(dataclasses.replace(OWN, method="ce", run_dir=str(root / "teacher")))
    settings = {"method": "mskd", "taps": "one", "teacher": str(root / "teacher")}
    student = dataclasses.replace(OWN, run_dir=str(root / "kd_0"), **settings)
    experiment.run(student)
    shutil.copytree(root / "kd_0", root / "kd_1")
    paths = RunPaths(root / "kd_1")  # another seed by name, so that a row has two
    paths.flags.write_text(to_flagfile(dataclasses.replace(student, seed=1)))
    result = read_result(paths.result)
    test = {name: value - 0.125 for name, value in result.test.items()}
    write_result(paths.result, dataclasses.replace(result, seed=1, test=test))
    return root


def packed(root, parent, title=TITLE):
    """Packs the runs in `root` as the release "digits" in `parent`; returns it."""
    opened = release_runs.open_runs(find_runs([root]))
    release.pack(opened, parent / "digits", title, "Apache-2.0", archive=True)
    return parent / "digits"


@pytest.fixture(scope="module")
def folder(runs, tmp_path_factory):
    """Their release, which no test changes."""
    return packed(runs, tmp_path_factory.mktemp("release"))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def call(monkeypatch, **given):
    """Calls the tool with these flags."""
    known = ("run_dirs", "output", "title", "licence", "data_note", "push", "check")
    values = {**dict.fromkeys(known, ""), "zip": False, **given}
    flags = types.SimpleNamespace(FLAGS=types.SimpleNamespace(**values))
    monkeypatch.setattr(release, "flags", flags)
    release.main()


@pytest.mark.run
def test_released_runs_are_read_as_the_runs_are(runs, folder, digits, monkeypatch):
    images = digits[0][:16]
    assert list(read_runs([folder])) == NAMES
    for name in NAMES:
        one, other = load_model(runs / name), load_model(folder / name)
        answers = [m.predict(images, verbose=0) for m in (one, other)]
        for exit, logits in answers[0].items():
            np.testing.assert_array_equal(logits, answers[1][exit])
        assert (folder / name / "metrics.jsonl").read_bytes() == (
            runs / name / "metrics.jsonl"
        ).read_bytes()
    student = FinishedRun(folder / "kd_0")
    found = evaluate_run(student)["accuracy"]
    assert {n: found[n] for n in found} == read_result(student.paths.result).test
    monkeypatch.chdir(folder)  # paths are relative to it
    teacher = student.teacher(student.student())
    np.testing.assert_array_equal(
        teacher.predict(images, verbose=0)["exit_1"],
        load_model(runs / "teacher").predict(images, verbose=0)["exit_1"],
    )


@pytest.mark.run
def test_a_release_holds_what_it_should_and_its_sums(folder):
    names = ("flags.txt", "metrics.jsonl", "result.json", "run.json", "student.keras")
    files = {f"{run}/{name}" for run in NAMES for name in names} | {"README.md"}
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}"
        for name in sorted(files)
    ]
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == files | {"SHA256SUMS"}
    assert release_files.check(folder) == len(files)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["digits", "digits.zip"]


@pytest.mark.run
def test_no_text_holds_a_path_of_the_machine(runs, folder):
    for path in folder.rglob("*"):
        if path.suffix in (".txt", ".json", ".jsonl", ".md"):
            text = path.read_text()
            assert not re.search(r"(?<![\w.])/\w+/", text), path
            assert str(runs) not in text and os.getcwd() not in text, path
    config = read_flagfile(folder / "kd_1" / "flags.txt")
    was = read_flagfile(runs / "kd_1" / "flags.txt")
    assert (config.run_dir, config.teacher) == ("kd_1", "teacher")
    assert dataclasses.replace(config, run_dir=was.run_dir, teacher=was.teacher) == was
    record, known = (
        json.loads((f / "kd_0" / "run.json").read_text()) for f in (folder, runs)
    )
    assert {**record, "command": 0} == {**known, "command": 0}


@pytest.mark.run
def test_the_card_tells_what_is_in_the_release(folder, tmp_path, monkeypatch, capsys):
    card = (folder / "README.md").read_text()
    front = card.split("---\n")[1].splitlines()
    assert front[:3] == [
        "license: apache-2.0",
        "library_name: keras",
        "pipeline_tag: image-classification",
    ]
    assert front[-4:] == ["datasets:", '- "digits"', "metrics:", '- "accuracy"']
    assert f"\n# {TITLE}\n" in card
    result = read_result(folder / "kd_0" / "result.json")
    mean = 100 * (result.test["ensemble"] - 0.0625)
    spread = 100 * 0.125 / 2**0.5  # of two values that are 0.125 apart
    cells = [line.split(" | ") for line in card.splitlines() if line[:6] == "| kd_*"]
    cells = [[cell.strip("| ") for cell in line] for line in cells]
    network, *deployed, last = cells
    assert network[1:10] == [
        *("tests.own_networks:small", "", "1, 2", "8x8x1", "10"),
        *("mskd", "1", "0, 1", "teacher"),
    ]
    assert f"{mean:.2f} ± {spread:.2f}" in last and last[-1] == "2"
    alone = load_model(folder / "kd_0")
    alone = keras.Model(alone.inputs, alone.output["exit_1"])
    assert [line[1] for line in deployed] == ["exit 1", "exit 2", "all exits"]
    assert deployed[0][3] == str(alone.count_params())
    assert "Classes of digits, 0: 0, 1: 1, 2: 2, " in card  # the classes in their order

    blocks = re.findall(r"^`([^`\n]+)`:\n\n```\n(.*?)```", card, re.M | re.S)
    for (name, text), run in zip(blocks, ("kd_0", "teacher"), strict=True):
        path = tmp_path / "own.flags"
        path.write_text(text)
        known = read_flagfile(folder / run / "flags.txt")
        assert read_flagfile(path, run_dir=run) == known, name

    monkeypatch.chdir(folder)
    exec(re.search(r"```python\n(.*?)```", card, re.S)[1], {})
    assert re.fullmatch(r"\[\d\]\n", capsys.readouterr().out)
    assert "It has layers of `tests`: import them before." in card


@pytest.mark.run
def test_the_card_tells_what_keras_alone_can_read(runs, folder, monkeypatch):
    opened = release_runs.open_runs([runs / "teacher"])
    networks = release_networks.read_networks(folder, opened)
    network = dataclasses.replace(networks["teacher"], packages={"keras"})
    text = release_card.card({"teacher": network}, {}, TITLE, "LicenseRef-own", "CC.")
    assert text.startswith('---\nlicense: other\nlicense_name: "licenseref-own"\n')
    assert "Weights and this card: LicenseRef-own. CC.\n" in text
    assert "One seed each: the figures do not tell how much they spread." in text
    monkeypatch.chdir(folder)
    path = re.search(r"`keras\.saving\.load_model\(\"(.*)\", compile=False\)`", text)
    assert keras.saving.load_model(path[1], compile=False).inputs


@pytest.mark.run
def test_the_card_tells_of_a_teacher_that_is_not_released(runs, folder):
    opened = release_runs.open_runs([runs / "kd_0"])
    networks = release_networks.read_networks(folder, opened)
    text = release_card.card(networks, {"digits": ()}, TITLE, "mit", "")
    assert "\nClasses are those of digits in the order of its labels.\n" in text
    (line,) = [x for x in text.splitlines() if x.startswith("| kd_0 ") and "8x8x1" in x]
    assert line.split(" | ")[-2].strip() == "small (not released)"


@pytest.mark.run
def test_an_archive_is_the_folder_and_the_same_each_time(runs, folder, tmp_path):
    again = packed(runs, tmp_path)
    one, other = (f.with_name("digits.zip") for f in (folder, again))
    assert one.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(one) as archive:
        archive.extractall(tmp_path / "extracted")
    assert release_files.check(tmp_path / "extracted" / "digits") == 16


@pytest.mark.run
def test_the_check_names_what_is_not_as_released(copy, monkeypatch):
    path = copy / "kd_0" / "student.keras"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    (copy / "kd_1" / "run.json").unlink()
    (copy / "notes.txt").touch()
    message = "changed kd_0/student.keras; missing kd_1/run.json; additional notes.txt"
    with pytest.raises(UserError, match=f"not as it was released: {message}. Fetch"):
        call(monkeypatch, check=str(copy))


@pytest.mark.run
def test_nothing_is_written_where_a_part_fails(runs, tmp_path):
    with pytest.raises(UserError, match=r"README.md would hold a path .*'/home/me/x'"):
        packed(runs, tmp_path, title="from /home/me/x")
    assert not list(tmp_path.iterdir())
    root = tmp_path / "runs"
    shutil.copytree(runs / "teacher", root / "teacher")
    image = keras.Input((8, 8, 1))
    outputs = keras.layers.Lambda(lambda x: x)(image)
    keras.Model(image, outputs).save(root / "teacher" / "student.keras")
    with pytest.raises(UserError, match="Cannot read model file .*student.keras"):
        packed(root, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.run
def test_a_card_without_the_data_names_no_classes(runs, tmp_path, capsys):
    shutil.copytree(runs / "teacher", tmp_path / "teacher")
    flags = RunPaths(tmp_path / "teacher").flags
    settings = {"dataset": "cifar100", "data_dir": str(tmp_path)}
    flags.write_text(to_flagfile(read_flagfile(flags, **settings)))
    opened = release_runs.open_runs([tmp_path / "teacher"])
    assert release_networks.class_names(opened) == {"cifar100": ()}
    assert capsys.readouterr().out.startswith("The card will name no classes: ")
    restored = read_flagfile(flags, dataset="low_light", task="restoration")
    flags.write_text(to_flagfile(restored))
    opened = release_runs.open_runs([tmp_path / "teacher"])
    assert release_networks.class_names(opened) == {}


# ---- without networks


@pytest.fixture
def study(tmp_path):
    """Two finished runs with made-up results; their networks are no networks."""
    folders = seeded(tmp_path / "runs", (0.5, 0.6))
    for folder in folders:
        paths = RunPaths(folder)
        write_json(paths.record, {"command": ["/a/train.py", "--data_dir=/d"]})
        paths.student.touch()
    return folders


def test_the_examples_of_the_tool_give_what_they_show():
    assert doctest.testmod(release_runs) == (0, 4)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"teacher": "/r/t"}, "t"),
        ({"teacher": "/r/t/student.keras"}, "t/student.keras"),
        ({"teacher": "/r/t/student_best.keras"}, ""),  # which is not released
        ({"teacher": "/r/other", "teacher_size": 32}, ""),
        ({"teacher": "my.nets:large"}, "my.nets:large"),
        ({"teacher": "keras:VGG16?weights=/w/v.h5"}, "keras:VGG16?weights=v.h5"),
        ({"teacher": "vgg8?weights=/w/v.pth"}, "vgg8?weights=v.pth"),
        ({"model": "/a/net.keras"}, "net.keras"),
        ({"teacher_cache": "/scratch/t"}, "teacher_cache/t"),
        ({"teacher_flagfile": "/me/my.flags"}, "my.flags"),
        ({"teacher_flagfile": "../my.flags"}, "my.flags"),
        ({"teacher_flagfile": "mine/my.flags"}, "mine/my.flags"),
        (
            {"init_flagfile": "/x/configs/digits/teacher.flags", "freeze": "backbone"},
            "configs/digits/teacher.flags",
        ),
        ({"teacher_run_dir": "/r/t", "teacher_flagfile": "a.flags"}, "t"),
        ({"teacher_run_dir": "/r/t", "teacher_flagfile": "t.flags"}, ""),  # beside it
        ({"init_run_dir": "/r/other"}, ""),
    ],
)
def test_paths_are_those_of_the_release(given, kept):
    config = Config(run_dir="/r/own", data_dir="/data", **given)
    found = release_runs.portable(config, "own", {"/r/t": "t", "/r/own": "own"})
    assert getattr(found, next(iter(given))) == kept
    assert (found.run_dir, found.data_dir) == ("own", "")
    assert not release_runs.ABSOLUTE.search(to_flagfile(found))


@pytest.mark.parametrize("text", ["a=/home/me", "see ~/x", '"C:\\x"', "a,/b/c"])
def test_absolute_paths_are_found(text, tmp_path):
    (tmp_path / "README.md").write_text("https://a.b/c and/or 1 / 2\n")
    release_runs.check_text(tmp_path)
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(UserError, match="README.md would hold a path of this machine"):
        release_runs.check_text(tmp_path)


def test_only_whole_runs_of_other_names_are_taken(study):
    open_runs = release_runs.open_runs
    assert [run.name for run in open_runs(study)] == ["kd_seed0", "kd_seed1"]
    spaced = study[0].rename(study[0].with_name("kd 0"))
    with pytest.raises(UserError, match="run folder 'kd 0' must be named by letters"):
        open_runs([spaced])
    twin = shutil.copytree(study[1], study[1].parent / "more" / "kd_seed1")
    with pytest.raises(UserError, match="would both be kd_seed1 in the release"):
        open_runs([study[1], twin])
    paths = RunPaths(twin)
    for record in ({"versions": {}}, {"command": ["a"], "versions": 1}, []):
        write_json(paths.record, record)
        with pytest.raises(UserError, match="run.json is damaged: it holds no command"):
            open_runs([twin])
    paths.student.unlink()
    with pytest.raises(UserError, match="No model file at .*student.keras"):
        open_runs([twin])
    write_json(paths.result, {"test": {"exit_1": 50.0}})
    with pytest.raises(UserError, match="result.json has format 1, this version reads"):
        open_runs([twin])


GIVEN = {"run_dirs": "{runs}", "output": "{new}", "licence": "mit"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"run_dirs": ""}, "--run_dirs is empty: name folders of finished runs"),
        ({"output": ""}, "--output is empty: name the folder to write"),
        ({"licence": ""}, "--licence= is no licence of the weights: give an SPDX"),
        ({"licence": "do what you want"}, "--licence=do what .* is no licence"),
        ({"title": "two\nlines"}, "--title must be one line of plain text"),
        ({"data_note": "a\tb"}, "--data_note must be one line of plain text"),
        ({"push": "me"}, "--push=me is no USER/REPO: name both"),
        ({"push": "me/it"}, "--push needs huggingface_hub, .* pip install hugg"),
        ({"output": "{runs}"}, "runs is there already: remove it, or name another"),
        ({"output": "{used}", "zip": True}, "used.zip is there already: remove it"),
        ({"run_dirs": "{empty}"}, "empty' holds no finished run .no result.json"),
        ({"check": "{empty}", "zip": True}, "--check only compares: leave out --run_d"),
    ],
)
def test_mistakes_get_one_line(given, message, study, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not there
    (tmp_path / "empty").mkdir()
    (tmp_path / "used.zip").touch()
    names = {name: tmp_path / name for name in ("runs", "new", "used", "empty")}
    values = {**GIVEN, **given}
    texts = {k: v.format(**names) for k, v in values.items() if isinstance(v, str)}
    with pytest.raises(UserError, match=message):
        call(monkeypatch, **{**values, **texts})
    assert not (tmp_path / "new").exists()


def test_a_check_needs_sums(tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="holds no SHA256SUMS: name a release's folder"):
        call(monkeypatch, check=str(tmp_path))
    (tmp_path / "a.txt").write_text("a")
    release_files.write_sums(tmp_path)
    call(monkeypatch, check=str(tmp_path))
    assert capsys.readouterr().out.endswith("all 1 files are as they were released.\n")
    (tmp_path / "SHA256SUMS").write_text("a.txt\n")
    with pytest.raises(UserError, match="SHA256SUMS is damaged: a line is not that of"):
        call(monkeypatch, check=str(tmp_path))


def test_only_a_push_uploads(study, tmp_path, monkeypatch, capsys):
    calls = []
    hub = types.SimpleNamespace(
        create_repo=lambda *a, **k: calls.append((a, k)),
        upload_folder=lambda **k: calls.append(k),
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(release, "pack", lambda *a: None)
    given = {"run_dirs": str(tmp_path / "runs"), "output": str(tmp_path / "new")}
    call(monkeypatch, licence="mit", **given)
    assert calls == []
    call(monkeypatch, licence="mit", push="me/it", **given)
    uploaded = {"repo_id": "me/it", "folder_path": str(tmp_path / "new")}
    assert calls == [(("me/it",), {"exist_ok": True}), uploaded]
    assert capsys.readouterr().out.endswith("uploaded it to me/it\n")
    hub.upload_folder = lambda **_: 1 / 0
    with pytest.raises(
        UserError, match="is written, but was not uploaded to me/it: div"
    ):
        call(monkeypatch, licence="mit", push="me/it", **given)
