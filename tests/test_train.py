"""Whole runs on real digits: accuracy, run folder, resume, evaluation, mistakes."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.support import PATIENCE, ROOT, SMALL, history_of, weights_of
from tf_mskd.models import sub_model
from tf_mskd.models.saving import load_model
from tf_mskd.runs import experiment
from tf_mskd.runs.comparison import read_runs
from tf_mskd.runs.evaluation import evaluate_run
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.runs.flags import read_flagfile, to_flagfile
from tf_mskd.runs.report_files import write
from tf_mskd.runs.report_tables import Report, rows_of
from tf_mskd.runs.result import read_result
from tf_mskd.training import checkpoint
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.tables import as_text

FOUR = {"exits": "all", "exit_head": "dense"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder with flagfiles of a teacher and its exits, and their finished runs."""
    folder = tmp_path_factory.mktemp("runs")
    teacher = dataclasses.replace(SMALL, exits="last", width=0.25)
    heads = dataclasses.replace(
        teacher,
        **FOUR,
        init_flagfile=str(folder / "teacher.flags"),
        freeze="backbone",
        epochs=3,
    )
    for name, config in {"teacher": teacher, "teacher_exits": heads}.items():
        (folder / f"{name}.flags").write_text(to_flagfile(config))
    return folder


def run(folder, name, **settings):
    """Runs SMALL with other settings in a folder; returns configuration and result."""
    config = dataclasses.replace(SMALL, run_dir=str(folder / name), **settings)
    return config, experiment.run(config)


@pytest.fixture(scope="module")
def oto(runs):
    """A finished OtO run of four exits, with the runs of its teacher before it."""
    flagfile = str(runs / "teacher_exits.flags")
    return run(runs, "oto", method="oto", teacher_flagfile=flagfile, **FOUR)


@pytest.mark.run
def test_oto_on_real_digits_passes_90_percent(oto, runs):
    _, result = oto
    exits = [f"exit_{k}" for k in (1, 2, 3, 4)]
    assert min(result.test[name] for name in (*exits, "ensemble")) > 0.9
    assert result.macs["exit_1"] < result.macs["exit_4"]
    student = load_model(runs / "oto")
    alone = [sub_model(student, name).count_params() for name in exits]
    assert list(result.exit_params.values()) == alone
    assert max(alone) < result.params < sum(alone)
    assert set(result.fitted_weights) == set(exits)
    assert (runs / "teacher" / "result.json").exists()
    assert (runs / "teacher_exits" / "result.json").exists()


@pytest.mark.run
def test_frozen_backbone_is_the_teachers(oto, runs):
    teacher, heads = load_model(runs / "teacher"), load_model(runs / "teacher_exits")
    for layer in teacher.layers:
        mate = heads.get_layer(layer.name).get_weights()
        for old, new in zip(layer.get_weights(), mate, strict=True):
            np.testing.assert_array_equal(old, new, layer.name)


@pytest.mark.run
def test_run_folder_holds_what_it_should(oto, runs):
    config, result = oto
    folder = runs / "oto"
    assert read_flagfile(folder / "flags.txt") == config
    record = json.loads((folder / "run.json").read_text())
    assert {"command", "versions", "commit", "machine"} < set(record)
    assert set(record["fingerprints"]) == {"teacher"}
    assert read_result(folder / "result.json") == result
    history = history_of(folder)
    assert [line["epoch"] for line in history] == list(range(1, 7))
    assert {"loss", "kd/exit_1", "ce/exit_4", "val_exit_2_accuracy"} <= set(history[0])
    paths = list((folder / "checkpoints").glob("checkpoint_*.npz"))
    assert len(paths) == checkpoint.KEPT
    student = load_model(folder)
    assert not any("teacher" in layer.name for layer in student.layers)


@pytest.mark.run
def test_evaluate_repeats_the_numbers_and_gives_subsets(oto, runs):
    _, result = oto
    table = evaluate_run(FinishedRun(runs / "oto"), subsets=True)["accuracy"]
    assert {n: table[n] for n in result.test} == result.test
    assert sum("+" in name for name in table) == 2**4 - 1 - 4 - 1
    run = FinishedRun(runs / "oto")
    logits, labels = run.logits(run.student())
    two = np.mean(np.argmax(logits["exit_1"] + logits["exit_3"], -1) == labels)
    assert abs(table["exit_1+exit_3"] - two) < 1e-12
    assert evaluate_run(run, which="best") == {"accuracy": result.test_best}


@pytest.mark.run
def test_same_command_again_says_that_it_is_finished(oto, capsys):
    config, result = oto
    assert experiment.run(config) == result
    assert "is finished: test exit_1" in capsys.readouterr().out


@pytest.mark.run
def test_photographs_of_mixed_sizes_train_and_one_line_says_what_was_read(
    tmp_path, digits, capsys
):
    for label in (3, 8):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        for k, image in enumerate(digits[0][digits[1] == label][:20]):
            wide = np.pad(image[..., 0], ((0, 0), (0, k)))
            Image.fromarray(wide).save(tmp_path / "data" / str(label) / f"{k:02}.bmp")
    (tmp_path / "data" / "README.md").write_text("digits")
    settings = {
        "dataset": "folder",
        "data_dir": str(tmp_path / "data"),
        "batch_size": 8,
    }
    settings |= {"image_size": 8, "test_fraction": 0.25, "epochs": 1}
    _, result = run(tmp_path, "own", **settings)
    assert (
        "data folder: train 30 images (3 15, 8 15), test 10 (3 5, 8 5), 8x8x3; "
        "38 of 40 resized from 8x9 to 8x27 (crop); passed over: 1 .md\n"
    ) in capsys.readouterr().out
    assert evaluate_run(FinishedRun(tmp_path / "own"))["accuracy"] == result.test


@pytest.mark.run
def test_other_flags_in_the_same_folder_are_named(oto):
    config, _ = oto
    other = dataclasses.replace(config, lr=0.1, epochs=7)
    with pytest.raises(UserError, match=r"--epochs \(was 6, now 7\); --lr \(was 0.05"):
        experiment.run(other)


@pytest.mark.run
def test_report_writes_table_and_curves(oto, runs, tmp_path):
    found = read_runs([runs / "teacher", runs / "oto"])
    rows = rows_of(found)
    assert rows[0][:5] == ["run", "exit 1", "exit 2", "exit 3", "exit 4"]
    assert rows[2][1] == f"{100 * oto[1].test['exit_1']:.2f}"
    write(Report(found, found), tmp_path)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert as_text(rows) in (tmp_path / "table.md").read_text()
    with pytest.raises(UserError, match="holds no finished run"):
        read_runs([tmp_path])


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.run
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("progressive", {"method": "mskd", "phases": "progressive", "dropout": 0.1}),
        ("detached", {"method": "ce", "phases": "detached"}),
    ],
)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    runs, oto, tmp_path, monkeypatch, name, settings
):
    settings = {**settings, "train_fraction": 0.5, "epochs": 4, "width": 0.0625}
    if settings["method"] == "mskd":
        settings["teacher"] = str(runs / "teacher")
    run(tmp_path, "whole", **settings)

    write, writes = checkpoint.CheckpointManager.write, []

    def write_and_die(self, *args):
        write(self, *args)
        writes.append(args[0])
        if len(writes) in (2, 7):
            raise Killed

    monkeypatch.setattr(checkpoint.CheckpointManager, "write", write_and_die)
    often = {"checkpoint_minutes": 1e-9, "steps_per_call": 7}
    for _ in range(2):
        with pytest.raises(Killed):
            run(tmp_path, "parts", **settings, **often)
    run(tmp_path, "parts", **settings, **often)
    assert any(step % 20 for step in writes), "no checkpoint in the middle of an epoch"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert history_of(whole) == history_of(parts)
    for file in ("student.keras", "student_best.keras"):
        pairs = zip(weights_of(whole / file), weights_of(parts / file), strict=True)
        for a, b in pairs:
            np.testing.assert_array_equal(a, b, f"{name}: {file}")


@pytest.mark.run
def test_progressive_trains_one_more_exit_each_phase(runs, oto, tmp_path):
    config, result = run(
        tmp_path,
        "progressive",
        method="mskd",
        teacher=str(runs / "teacher"),
        phases="progressive",
        phase_epochs="2,4",
    )
    history = history_of(tmp_path / "progressive")
    assert [line["phase"] for line in history] == [1, 1, 2, 2, 2, 2]
    assert "kd/exit_2" not in history[1] and "val_exit_2_accuracy" not in history[1]
    assert "kd/exit_2" in history[2]
    assert result.test["ensemble"] > 0.9


@pytest.mark.run
def test_exploding_loss_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    bad = {"method": "ce", "lr": 1e20, "lr_schedule": "constant"}
    with pytest.raises(UserError, match=r"not finite at epoch 1, step \d+ of"):
        run(tmp_path, "nan", **bad)
    assert not (tmp_path / "nan" / "result.json").exists()
    assert not list((tmp_path / "nan" / "checkpoints").iterdir())


MISTAKES = [
    ({"run_dir": ""}, "--run_dir is empty"),
    ({"model": "resnet11"}, "Unknown .*'resnet11'; did you mean 'resnet1"),
    ({"exits": "1,7"}, "7"),
    ({"method": "mksd"}, "Unknown method 'mksd'; did you mean 'mskd'"),
    ({"dataset": "digitz"}, "digitz.*did you mean 'digits'"),
    ({"method": "mskd"}, "--method=mskd needs a teacher"),
    ({"method": "kd", "teacher": "nowhere.keras"}, "No model file at 'nowhere.keras'"),
    ({"teacher_flagfile": "nowhere.flags"}, "No flagfile 'nowhere.flags'"),
    ({"method_args": "temprature=3", "method": "mskd"}, "did you mean 'temperature'"),
    ({"method_args": "temperature=x", "method": "mskd"}, "takes a value like"),
    ({"term_weights": "kd:1"}, "Unknown term in term_weights 'kd'"),
    ({"exit_weights": "exit_9:1"}, "Unknown exit in exit_weights 'exit_9'"),
    ({"augment": "crop,flp"}, "flp.*did you mean 'flip'"),
    ({"phases": "progressive", "epochs": 1}, "needs at least 2 epochs"),
    ({"phases": "progressive", "phase_epochs": "1,2,3"}, "must be 2 positive numbers"),
    ({"batch_size": 100000}, "100000"),
    ({"strategy": "one_device", "num_devices": 99}, "99 devices"),
    ({"warmup_epochs": 9.0}, "must be less than epochs=6"),
    ({"train_fraction": 0.0}, "train_fraction"),
]


@pytest.mark.run
@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_a_users_mistake_gets_one_line(tmp_path, settings, message):
    settings = {"run_dir": str(tmp_path / "run"), "method": "ce", **settings}
    with pytest.raises(UserError, match=message) as caught:
        experiment.run(dataclasses.replace(SMALL, **settings))
    assert "\n" not in str(caught.value)


@pytest.mark.run
def test_a_teacher_of_another_kind_is_refused(runs, oto, tmp_path):
    narrow = {"method": "oto", "teacher": str(runs / "teacher")}
    with pytest.raises(UserError, match="of the teacher, which has exit_4.*exit_map"):
        run(tmp_path, "few_exits", **narrow, **FOUR)
    resized = {"method": "kd", "teacher": str(runs / "teacher"), "image_size": 16}
    with pytest.raises(UserError, match="differ in image size"):
        run(tmp_path, "size", exits="last", **resized)


@pytest.mark.run
def test_a_teacher_of_larger_images_teaches(tmp_path, capsys):
    few = {"exits": "last", "train_fraction": 0.3, "width": 0.0625, "epochs": 1}
    larger = dataclasses.replace(SMALL, image_size=16, **few)
    (tmp_path / "larger.flags").write_text(to_flagfile(larger))
    settings = {"teacher_flagfile": str(tmp_path / "larger.flags"), **few}
    settings |= {"teacher_cache": str(tmp_path / "cache"), "cached_augmentations": 1}
    run(tmp_path, "own", method="kd", teacher_size=16, **settings)
    text = capsys.readouterr().out
    assert text.count("gets the images resized to 16x16 (bilinear)") == 1
    measured = re.search(r"on the test split: exit_4 (\S+) %", text)[1]
    accuracy = read_result(tmp_path / "larger" / "result.json").test["exit_4"]
    assert float(measured) == pytest.approx(100 * accuracy, abs=5)


@pytest.mark.run
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="Cannot make run folder .*file"):
        run(file, "run", method="ce")


@pytest.mark.run
def test_two_devices_give_the_run_of_one(tmp_path):
    """The command as users type it, on two devices, and the run of one."""
    # few steps: training amplifies the last digit, in which sums over devices differ
    settings = {"epochs": 2, "train_fraction": 0.1, "lr": 0.005, "method": "ce"}
    settings["lr_schedule"] = "constant"
    flagfile = tmp_path / "small.flags"
    flagfile.write_text(to_flagfile(dataclasses.replace(SMALL, **settings)))
    _, alone = run(tmp_path, "alone", strategy="one_device", **settings)
    command = [sys.executable, "-m", "tf_mskd.train", f"--flagfile={flagfile}"]
    command += [f"--run_dir={tmp_path}/two", "--strategy=mirrored", "--num_devices=2"]
    options = {"capture_output": True, "text": True, "cwd": ROOT, "timeout": PATIENCE}
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = weights_of(tmp_path / "alone"), weights_of(tmp_path / "two")
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    histories = history_of(tmp_path / "alone"), history_of(tmp_path / "two")
    for a, b in zip(*histories, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    # 360 test images in batches of 256: the last batch is padded
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert result["test"] == alone.test
