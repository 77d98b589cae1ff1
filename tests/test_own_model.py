"""Networks of one's own as --model and --teacher."""

import contextlib
import dataclasses
import os
import sys

import keras
import numpy as np
import pytest

from tests import own_networks
from tests.support import OWN, Command, Shapes, weights_of
from tf_mskd import load_model, models
from tf_mskd.runs import (
    build,
    evaluation,
    experiment,
    inputs,
    networks,
    own_student,
    plan,
)
from tf_mskd.runs.config import Config
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.runs.initial_weights import copy_weights
from tf_mskd.runs.result import read_result
from tf_mskd.utils.errors import UserError

SMALL = "tests.own_networks:small"


DIGITS = Shapes()


def student(model, shapes=DIGITS, **settings):
    return build.build_student(Config(model=str(model), **settings), shapes)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder of files of networks."""
    folder = tmp_path_factory.mktemp("networks")
    small = own_networks.small(10, (8, 8, 1))
    small.save(folder / "small.keras")
    small.save(folder / "small.h5")
    own_networks.probabilities(7, (8, 8, 1)).save(folder / "seven.keras")
    made = {"exits": small, "any_size": any_size()}
    made["exits"] = models.add_exits(small, ["one"], 10)
    for name, network in made.items():
        network.save(folder / f"{name}.keras")
    two = keras.Input((4,)), keras.Input((4,))
    keras.Model(two, keras.layers.Add()(two)).save(folder / "two_inputs.keras")
    return folder


def any_size():
    image = keras.Input((None, None, 1))
    return keras.Model(image, keras.layers.Conv2D(4, 3, name="conv")(image))


@contextlib.contextmanager
def policy(name):
    """The global policy, as a run sets it before it builds."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


# ---- what becomes of them


@pytest.mark.parametrize("name", ["small.keras", "small.h5"])
def test_a_file_is_where_a_student_starts(name, files):
    plain = keras.saving.load_model(files / "small.keras")
    made = student(files / name, taps="one", exit_head="linear")
    assert list(made.output) == ["exit_1", "exit_2"]
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(made(images)["exit_2"], plain(images), rtol=1e-5)


def test_a_file_with_exits_keeps_them(files):
    assert list(student(files / "exits.keras").output) == ["exit_1", "exit_2"]


def test_an_end_of_no_logits_gets_a_head():
    made = student("tests.own_networks:small", Shapes(10))
    assert made.output["exit_1"].shape == (None, 10)


def test_a_network_of_any_size_gets_that_of_the_data(files):
    made = student(files / "any_size.keras")
    assert made.input.shape == (None, 8, 8, 1) and models.count_macs(made) > 0


def test_a_function_makes_a_new_network_of_the_same_names():
    one, two = student(SMALL, taps="one"), student(SMALL, taps="one")
    assert [v.path for v in one.variables] == [v.path for v in two.variables]
    assert not {id(v) for v in one.variables} & {id(v) for v in two.variables}
    copy_weights(one, two)
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_batch_norms_are_those_of_all_devices():
    made = own_student.build_own_student(
        Config(model="tests.own_networks:normalized"), DIGITS, synchronized_bn=True
    )
    assert made.get_layer("norm").synchronized


def test_modules_of_the_current_folder_are_found(tmp_path, monkeypatch):
    text = "from tests.own_networks import small as mine\n"
    (tmp_path / "a_module_of_mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    assert list(student("a_module_of_mine:mine").output) == ["exit_1"]


@pytest.mark.run
def test_a_network_of_keras_applications_is_built_and_cut(tmp_path):
    shapes = Shapes(10, (32, 32, 3))
    text = "keras:MobileNetV2?alpha=0.35"
    made = student(text, shapes, taps="block_5_add,block_12_add", exit_head="auto")
    assert list(made.output) == ["exit_1", "exit_2", "exit_3"]
    made = student(text + "&include_top=yes", shapes)
    made.save_weights(tmp_path / "w.weights.h5")
    teacher = networks.load_network(f"{text}&weights={tmp_path}/w.weights.h5", shapes)
    assert teacher.output.shape == (None, 10)
    np.testing.assert_array_equal(teacher.get_weights()[0], made.get_weights()[0])


@pytest.mark.parametrize(("task", "width"), [("binary", 1), ("multi_label", 10)])
def test_a_function_is_told_the_width_that_the_task_needs(task, width):
    shapes = Shapes(2 if task == "binary" else 10)
    made = student(SMALL, shapes, task=task, taps="one")
    assert made.output["exit_2"].shape == made.output["exit_1"].shape == (None, width)
    teacher = networks.load_network(SMALL, shapes, task)
    assert teacher.output.shape == (None, width)


def test_a_function_makes_a_teacher_of_the_size_that_it_is_shown():
    config = Config(model=SMALL, teacher=SMALL, teacher_size=12, method="kd")
    seen = build.teacher_source(config, DIGITS)
    teacher = networks.load_network(SMALL, seen)
    assert teacher.input.shape == (None, 12, 12, 1)
    distiller = build.build_distiller(config, DIGITS, teacher)
    assert distiller.teacher.input.shape == (None, 8, 8, 1)


# ---- mistakes


SETTINGS = [  # of Config alone
    ({"model": SMALL, "exits": "last"}, "--exits shapes .* default, and name .*--taps"),
    (
        {"model": SMALL, "width": 0.5},
        "--width shapes .* is your own: leave it at",
    ),
    ({"model": SMALL, "dropout": 0.5}, "--dropout shapes the library's networks"),
    ({"model": SMALL, "attention": True}, "--attention shapes the library's"),
    ({"model": SMALL, "vgg_taps": "1,2,3,4"}, "--vgg_taps shapes the library's"),
    ({"model": SMALL, "stem": "imagenet"}, "--stem shapes the library's networks"),
    ({"model": SMALL, "exit_head": "linear"}, "exit_head=linear needs --taps, which"),
    ({"model": SMALL, "exit_head": "stage", "taps": "one"}, "exit_head=stage copies"),
    ({"taps": "one,two"}, "--taps=one,two places exits .*=resnet10 is the library's"),
    ({"exit_head": "auto"}, "--exit_head=auto is for --taps, --model=resnet10 is"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS)
def test_settings_of_the_other_kind_of_network_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Config(**settings)


BEFORE = [  # before TensorFlow is imported
    (
        {"model": "mobilenetv2"},
        "Unknown model 'mobilenetv2'; did you mean 'mobilenet_v2'.*keras:Mob",
    ),
    ({"model": "no/such.keras"}, "No model file at 'no/such.keras', which --mo"),
    (
        {"model": "keras:VGG16?weights=no.h5"},
        "No model file at 'no.h5', which --model=ke",
    ),
    ({"model": "keras:VGG16?weights=imagenet"}, "would download weights: save them to"),
    ({"model": "keras:VGG16?weights"}, r"--model must have name=value&... after \?"),
    ({"model": "keras:VGG16?a=1&a=2"}, "--model names a twice"),
    (
        {"teacher": "no/such.h5"},
        "No model file at 'no/such.h5', which --te",
    ),
    ({"teacher": "keras:VGG16?weights=imagenet"}, "--teacher=keras:.* would download"),
    ({"teacher": "no/such"}, "No model file at 'no/such'"),
]


@pytest.mark.parametrize(("settings", "message"), BEFORE)
def test_mistakes_are_found_before_anything_is_built(settings, message):
    with pytest.raises(UserError, match=message):
        config = Config(**settings)
        inputs.check_names(config)
        inputs.check_inputs(config)


STUDENTS = [
    ("keras:mobilenetv2", "keras.applications 'mobilenetv2'; did you mean 'Mobile"),
    ("keras:MobileNetV2?alhpa=1", "argument of keras:MobileNetV2 'alhpa'; .*'alpha'"),
    ("keras:MobileNetV2?alpha=x", "--model: alpha takes a value like 1.0, got 'x'"),
    ("keras:MobileNetV2", "keras:MobileNetV2 cannot be built: Input size must be"),
    ("{files}/seven.keras", "ends in probabilities of 7 classes, the data need 10"),
    ("{files}/two_inputs.keras", r"reads \(4,\), \(4,\), the data have images \(8, 8"),
    ("tests.own_networks:failing", r"failed when .*=\(8, 8, 1\): KeyError: 'no netw"),
    ("tests.own_networks:smal", "Unknown function of tests.own_networks 'smal'; .*sma"),
    ("tests.own_networks:NO_FUNCTION", "Unknown function of .* 'NO_FUNCTION'"),
    ("tests.own_networks:no_model", "must return a functional Keras model, got list"),
    ("tests.own_networks:subclassed", "must return a functional .* got Subclassed"),
    ("tests.no_networks:small", "module 'tests.no_networks' cannot be imported from"),
    ("tests.own_networks:probabilities", "small ends in probabilities .*classifier_"),
]


@pytest.mark.parametrize(("model", "message"), STUDENTS)
def test_networks_that_are_no_students_are_refused(model, message, files):
    with pytest.raises(UserError, match=message):
        student(model.format(files=files))


def test_what_does_not_fit_a_file_is_refused(files):
    small, exits = files / "small.keras", files / "exits.keras"
    with pytest.raises(UserError, match="Unknown tap 'noe'; did you mean 'one'"):
        student(small, taps="noe")
    with pytest.raises(UserError, match=r"reads \(8, 8, 1\), .* \(9, 9, 1\): .*_size"):
        student(small, Shapes(10, (9, 9, 1)))
    with pytest.raises(UserError, match="taps=one places exits, .*its own, exit_1, e"):
        student(exits, taps="one")
    with pytest.raises(UserError, match="has exits for 10 classes, the data need 7"):
        student(exits, Shapes(7))
    with pytest.raises(UserError, match="=mixed_float16 does not change .* float32"):
        student(small, dtype_policy="mixed_float16")
    with pytest.raises(UserError, match="method=sskd needs auxiliary heads .*small"):
        build.build_student(Config(model=SMALL, method="sskd"), DIGITS, ["projection"])
    with pytest.raises(UserError, match="teacher=keras:VGG16 has no weights: name a"):
        networks.load_network("keras:VGG16", DIGITS)


@pytest.mark.parametrize(
    ("made", "run"),
    [
        ("float32", "mixed_bfloat16"),
        ("mixed_bfloat16", "float32"),
        ("mixed_float16", "mixed_bfloat16"),
    ],
)
@pytest.mark.parametrize("ours", [False, True])
def test_a_file_of_another_precision_than_the_run_is_refused(tmp_path, made, run, ours):
    """Its inputs, and the models in it, take the run's."""
    path = tmp_path / "net.keras"
    with policy(made):
        network = own_networks.small(10, (8, 8, 1))
        if ours:  # whose head is float32 in any case
            network = models.create_model("resnet10", 10, width=0.1, exits="last")
        network.save(path)
    shapes = Shapes(10, network.input_shape[1:])
    with policy(made):
        student(path, shapes, dtype_policy=made)
    message = (
        rf"--dtype_policy={run} does not change layers .* --model=.*net.keras are .*"
        rf"{made}.*: set --dtype_policy={made}, or build the network with yours\."
    )
    with policy(run), pytest.raises(UserError, match=message):
        student(path, shapes, dtype_policy=run)


def test_a_teacher_of_another_precision_is_none_of_the_runs_business(files):
    with policy("mixed_bfloat16"):
        student(SMALL, dtype_policy="mixed_bfloat16")
        teacher = networks.load_network(str(files / "small.keras"), DIGITS)
    assert list(teacher.output) == ["exit_1"]


def test_what_would_stop_a_run_at_its_end_is_refused_before(files):
    network = own_networks.unreadable(10, (8, 8, 1))
    with pytest.raises(UserError, match="cannot be read back .* Register its layers"):
        own_student.check_student(network, "tests.own_networks:unreadable")
    with pytest.raises(UserError, match="count_macs does not know 'quadratic', a Quad"):
        own_student.check_student(own_networks.quadratic(10, (8, 8, 1)), "a.keras")


def test_a_file_may_do_without_a_module_that_is_gone(tmp_path, capsys):
    network = own_networks.normalized(4, (8, 8, 1))
    models.add_exits(network, [], 4).save(tmp_path / "student.keras")
    (tmp_path / "flags.txt").write_text("--model=tests.no_networks:small\n")
    read = networks.load_network(str(tmp_path), DIGITS)
    assert list(read.output) == ["exit_1"]
    assert "may be missing: --model=tests.no_networks:small" in capsys.readouterr().out


# ---- whole runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of a function's network under a plain classifier's file."""
    folder = tmp_path_factory.mktemp("own")
    own_networks.probabilities(10, (8, 8, 1)).save(folder / "teacher.keras")
    config = dataclasses.replace(
        OWN,
        taps="one",
        method="mskd",
        teacher=str(folder / "teacher.keras"),
        run_dir=str(folder / "run"),
    )
    assert [planned.teacher for planned in plan.plan(config)] == [config.teacher]
    experiment.run(config)
    return config


@pytest.mark.run
def test_a_run_tells_the_network_as_it_was_named(run):
    result = read_result(os.path.join(run.run_dir, "result.json"))
    assert (result.model, result.teacher) == (SMALL, "small")
    assert list(result.macs) == ["exit_1", "exit_2", "ensemble"]
    assert experiment.run(run) == result  # it is finished


@pytest.mark.run
def test_a_finished_run_is_measured_calibrated_and_exported(run, tmp_path):
    finished = FinishedRun(run.run_dir)
    result = read_result(finished.paths.result)
    assert evaluation.evaluate_run(finished)["accuracy"] == result.test
    assert evaluation.calibrate_run(finished) and finished.paths.exits.is_file()
    record = evaluation.export_run(finished, tmp_path / "export", formats=["tflite"])
    assert record["files"]


@pytest.mark.run
def test_another_process_finds_the_layers_of_the_module(run):
    """Also those of a run that began with the file of another run."""
    second = dataclasses.replace(
        OWN, model=run.run_dir + "/student.keras", run_dir=run.run_dir + "_2"
    )
    experiment.run(second)
    done = Command("tf_mskd.evaluate", f"--run_dir={second.run_dir}").finish()
    assert done.returncode == 0, done
    teacher = networks.load_network(run.run_dir, DIGITS)
    assert list(teacher.output) == ["exit_1", "exit_2"]


@pytest.mark.run
def test_another_file_under_a_run_is_refused(tmp_path, files, monkeypatch):
    """The run stops before its first step; then its file changes."""
    path, run_dir = tmp_path / "start.keras", tmp_path / "run"
    path.write_bytes((files / "small.keras").read_bytes())
    config = dataclasses.replace(OWN, model=str(path), run_dir=str(run_dir))
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(experiment.Trainer, "run", stop)
        experiment.run(config)
    path.write_bytes((files / "exits.keras").read_bytes())
    with pytest.raises(UserError, match="model at .*start.keras is not the one that"):
        experiment.run(config)
    path.write_bytes((files / "small.keras").read_bytes())
    experiment.run(config)
    assert len(weights_of(run_dir)) == len(load_model(path).weights)


def stop(trainer):
    raise RuntimeError
