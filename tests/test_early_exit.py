"""Early exits of a real run on digits: calibrate, evaluate, the two commands."""

import dataclasses
import json
import re
import shutil
import types
import zipfile

import numpy as np
import pytest

from tests import reference
from tests.support import SMALL, Command
from tf_mskd import UserError, evaluate
from tf_mskd.early_exit import measure as early_exit
from tf_mskd.early_exit.calibration import calibrate
from tf_mskd.early_exit.outcomes import confidences, predictions
from tf_mskd.models import count_macs, create_model, sub_model
from tf_mskd.models.saving import load_model, save_model
from tf_mskd.runs import experiment
from tf_mskd.runs.data import Data
from tf_mskd.runs.evaluation import calibrate_run, evaluate_early_exit
from tf_mskd.runs.finished_run import FinishedRun

RUN = dataclasses.replace(
    SMALL,
    method="ce",
    width=0.0625,
    exits="1,2,3",
    epochs=4,
    validation_fraction=0.3,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, its result, and what calibration found; exits.json is there."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = experiment.run(dataclasses.replace(RUN, run_dir=str(folder)))
    fitted = calibrate_run(FinishedRun(folder), max_accuracy_drop=1.0)
    return folder, result, fitted


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of the run to break."""
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run"


def test_held_out_are_images_that_no_step_sees():
    data = Data(dataclasses.replace(RUN, validation_fraction=0.2, train_fraction=0.5))
    labels = data.source.train.labels

    def drawn(limit):
        batches = [targets for _, targets, _ in data.held_out_stream(limit)]
        ids = np.concatenate([targets["index"] for targets in batches])
        label = np.concatenate([targets["label"] for targets in batches])
        label, ids = label[ids >= 0], ids[ids >= 0]  # without the padding
        np.testing.assert_array_equal(label, labels[ids])
        return ids

    everything = drawn(len(labels))
    assert not set(everything) & set(data.train_ids)
    assert len(everything) + len(data.train_ids) == len(labels)
    size = len(data.validation_ids)
    np.testing.assert_array_equal(drawn(size), data.validation_ids)
    some = drawn(size + 50)
    assert len(some) == size + 50 and set(data.validation_ids) < set(some)
    few = drawn(50)
    assert len(few) == 50 and set(few) < set(data.validation_ids)
    assert few.max() > len(labels) / 2  # not the first ones
    none = dataclasses.replace(RUN, validation_fraction=0.0, train_fraction=0.5)
    data = Data(none)  # all that are held out are those the fraction left
    some = drawn(50)
    assert len(some) == 50 and not set(some) & set(data.train_ids)


def test_macs_count_the_heads_asked_on_the_way_by_hand():
    model = create_model("resnet10", 10, exits=[1, 2, 3], exit_head="linear")
    stem_and_1 = 32 * 32 * 9 * (3 * 64 + 2 * 64 * 64)
    stage_2 = 16 * 16 * (9 * (64 * 128 + 128 * 128) + 64 * 128)
    stage_3 = 8 * 8 * (9 * (128 * 256 + 256 * 256) + 128 * 256)
    first = stem_and_1 + 64 * 10
    second = first + stage_2 + 128 * 10
    expected = {"exit_1": first, "exit_2": second}
    expected["exit_3"] = second + stage_3 + 256 * 10
    assert early_exit.macs_so_far(model) == expected
    assert expected["exit_2"] == count_macs(sub_model(model, ["exit_1", "exit_2"]))


@pytest.mark.run
def test_calibration_uses_the_validation_split_alone(trained):
    folder, result, fitted = trained
    written = json.loads((folder / "exits.json").read_text())
    assert written["criterion"] == fitted["criterion"]
    run = FinishedRun(folder)
    logits, labels = run.logits(run.student(), held_out=20_000)
    # 0.3 of the training digits, class by class
    assert len(labels) == fitted["validation"]["examples"] == 434
    ones = dict.fromkeys(logits, 1.0)
    ensemble = np.mean(predictions(logits, ones)[-1].argmax(-1) == labels)
    assert abs(ensemble - result.validation["ensemble"]) < 1e-9
    found = fitted["validation"]
    assert found["accuracy"] >= found["full_accuracy"] - 0.01 - 1e-9
    assert found["macs_fraction"] < 0.9, found


@pytest.mark.run
def test_early_exits_on_the_test_split(trained, tmp_path):
    folder, result, fitted = trained
    measured = evaluate_early_exit(FinishedRun(folder), output=tmp_path / "new")
    assert json.loads((tmp_path / "new" / "early_exit.json").read_text()) == measured
    assert (tmp_path / "new" / "early_exit.png").stat().st_size > 10_000
    run = FinishedRun(folder)
    student = run.student()
    logits, labels = run.logits(student)
    probs = predictions(logits, fitted["temperatures"])
    correct = np.array([p.argmax(-1) == labels for p in probs])
    macs = list(early_exit.macs_so_far(student).values())
    confidence = confidences(fitted["criterion"], probs)
    for row, source in [
        (measured["early_exit"], fitted),
        *zip(measured["budgeted"], fitted["curve"], strict=True),
    ]:
        thresholds = list(source["thresholds"].values())
        accuracy, fraction, _ = reference.early_exits(
            confidence, correct, macs, thresholds
        )
        assert abs(row["accuracy"] - accuracy) < 1e-9
        assert abs(row["macs_fraction"] - fraction) < 1e-9
        assert abs(row["mean_macs"] - fraction * macs[-1]) < 1e-3
    anytime = measured["anytime"]
    assert [row["macs"] for row in anytime.values()] == macs
    assert macs[-1] == result.macs["ensemble"] == measured["full"]["mean_macs"]
    for name, row in anytime.items():
        assert abs(row["accuracy"] - result.test[name]) < 1e-9
        assert row["own_macs"] == result.macs[name]
    assert anytime["exit_3"]["so_far_accuracy"] == measured["full"]["accuracy"]
    first = measured["budgeted"][0]
    assert first["exit_rates"]["exit_1"] == 1.0
    assert first["accuracy"] == anytime["exit_1"]["so_far_accuracy"]


@pytest.mark.run
def test_extreme_thresholds_are_the_first_exit_and_the_full_pass(trained):
    _, _, fitted = trained
    logits, labels = reference.held_out(size=80)
    macs = {f"exit_{k}": 10 * k for k in (1, 2, 3)}
    for threshold, exit_name in ((0.0, "exit_1"), (2.0, "exit_3")):
        for criterion in ("max_probability", "margin", "entropy", "patience"):
            table = dict.fromkeys(macs, threshold)
            exits = {**fitted, "criterion": criterion, "thresholds": table}
            got = early_exit.measure(logits, labels, macs, macs, exits)
            assert got["early_exit"]["exit_rates"][exit_name] == 1.0, criterion
            assert got["early_exit"]["mean_macs"] == macs[exit_name]
            expected = got["anytime"][exit_name]["so_far_accuracy"]
            assert got["early_exit"]["accuracy"] == expected


def test_the_curves_are_the_measured_numbers_in_percent():
    logits, labels = reference.held_out(size=80)
    macs = {"exit_1": 40e6, "exit_2": 70e6, "exit_3": 100e6}
    alone = {"exit_1": 40e6, "exit_2": 60e6, "exit_3": 80e6}
    fitted = calibrate(logits, labels, macs, "margin", "exit", target_macs=0.7)
    measured = early_exit.measure(logits, labels, macs, alone, fitted)
    drawn = early_exit.curves(measured)
    accuracies = [100 * np.mean(z.argmax(-1) == labels) for z in logits.values()]
    x, y = drawn["one exit alone"]
    np.testing.assert_allclose([x, y], [[40, 60, 80], accuracies])
    x, y = drawn["all examples alike, exit so far"]
    np.testing.assert_allclose([x, y], [[40, 70, 100], accuracies])
    x, y = drawn["each example by margin"]
    expected = [[p["accuracy"], p["macs_fraction"]] for p in fitted["curve"]]
    np.testing.assert_allclose(np.transpose([y, x]), 100 * np.array(expected))
    (x,), (y,) = drawn["chosen thresholds"]
    found = fitted["validation"]
    expected = [100 * found["macs_fraction"], 100 * found["accuracy"]]
    np.testing.assert_allclose([x, y], expected)
    assert len(drawn) == 4


def test_early_exits_are_measured_alone(monkeypatch):
    for subsets, which in ((True, "last"), (False, "best")):
        values = types.SimpleNamespace(early_exit=True, subsets=subsets, which=which)
        monkeypatch.setattr(evaluate.flags, "FLAGS", values)
        with pytest.raises(UserError, match="remove --subsets and --which=best"):
            evaluate.main()


def command(module, *arguments):
    """Runs a command of the package; returns what it printed."""
    done = Command(f"tf_mskd.{module}", *arguments).finish()
    assert done.returncode == 0, done
    assert done.stdout.count("data digits: train 1,438 images") == 1
    assert not re.search("TensorFlow Lite|flatbuffer|fully_quantize", done.stderr)
    return done.stdout


@pytest.mark.run
def test_the_commands_print_what_they_found(copied):
    text = command("calibrate", f"--run_dir={copied}", "--target_macs=0.01")
    assert "| patience" in text and "calibration error" in text
    assert "--target_macs=0.01 cannot be reached: exit 1 alone" in text
    assert f"wrote {copied}/exits.json" in text
    text = command("evaluate", f"--run_dir={copied}", "--early_exit")
    assert "| chosen" in text and "answer by ensemble: test accuracy" in text
    assert {"early_exit.json", "early_exit.png"} <= {p.name for p in copied.iterdir()}


@pytest.mark.run
def test_the_command_exports_a_finished_run(copied, tmp_path):
    (copied / "exits.json").unlink()
    out, settings = tmp_path / "out", ("--format=tflite", "--exit=1")
    settings += ("--quantize=none,int8",)
    text = command("export", f"--run_dir={copied}", f"--output={out}", *settings)
    assert re.search(r"\| student_float32.tflite +\| +[\d,]+ \| +3 \|", text)
    assert "thresholds that no image reaches (no exits.json)" in text
    assert text.endswith(f"wrote {out}\n")
    with zipfile.ZipFile(out / "student_float32.tflite") as archive:
        metadata = json.loads(archive.read("metadata.json"))
    assert metadata["class_names"] == [str(k) for k in range(10)]


@pytest.mark.run
def test_mistakes_get_one_line(copied):
    def refused(message, function, *args, **options):
        with pytest.raises(UserError, match=message) as caught:
            function(*args, **options)
        assert str(caught.value).isprintable()

    refused("holds no finished run", FinishedRun, copied.parent)
    refused("holds no finished run", FinishedRun, "")
    run = FinishedRun(copied)
    refused("two targets", calibrate_run, run, max_accuracy_drop=1, target_macs=0.5)
    nowhere = copied / "nowhere" / "exits.json"
    refused("Cannot write .*exits.json", calibrate_run, run, output=nowhere)
    refused(
        "There is no .*calibrate first", evaluate_early_exit, run, exits_file=nowhere
    )
    (copied / "file").write_text("")
    refused("Cannot make .*file", evaluate_early_exit, run, output=copied / "file")
    student = load_model(copied)
    student.get_layer("exit_3").set_weights(
        [w + 1 for w in student.get_layer("exit_3").get_weights()]
    )
    save_model(student, copied / "student.keras")
    refused("was fitted for another student", evaluate_early_exit, run)
    flagfile = copied / "flags.txt"
    text = flagfile.read_text()
    flagfile.write_text(text.replace("fraction=0.3", "fraction=0.0"))
    refused(
        "trained with --validation_fraction=0, so no",
        calibrate_run,
        FinishedRun(copied),
    )
