"""A student of the library that starts from a file of PyTorch weights."""

import dataclasses
import re

import numpy as np
import pytest

from tests.models import numpy_networks as reference
from tests.models import torch_writer as writer
from tests.models.test_torch_weights import QUARTER
from tests.support import OWN, Shapes
from tests.test_published_teacher import save_resnet10
from tf_mskd.models import create_model, load_torch_weights
from tf_mskd.models.torch_weights import init_torch_weights
from tf_mskd.runs import build, experiment, inputs
from tf_mskd.runs.config import Config
from tf_mskd.utils.errors import UserError

DIGITS = Shapes()
THIN = {"model": "resnet10", "width": 1 / 16, "exit_head": "linear"}


def started(path, shapes=DIGITS, **settings):
    """The student that a run would start from."""
    config = Config(**{**THIN, "init_weights": str(path), **settings})
    return build.build_distiller(config, shapes).student


def images(side=8, channels=1):
    return np.random.default_rng(0).integers(0, 256, (2, side, side, channels))


def test_a_student_starts_from_the_file_but_for_its_early_exits(tmp_path, capsys):
    state = save_resnet10(tmp_path / "w.pth")
    student = started(tmp_path / "w.pth")
    same = create_model("resnet10", 10, input_shape=(8, 8, 1), width=1 / 16)
    load_torch_weights(same, state)
    assert list(student.output) == ["exit_1", "exit_2", "exit_3", "exit_4"]
    np.testing.assert_allclose(
        student(images())["exit_4"], same(images())["exit_4"], rtol=1e-5, atol=1e-5
    )
    assert capsys.readouterr().out == (
        f"resnet10 starts from {tmp_path}/w.pth but for exit_1, exit_2, exit_3, which "
        "start anew.\n"
    )
    started(tmp_path / "w.pth", exits="last")
    said = capsys.readouterr().out
    assert said == f"resnet10 starts from {tmp_path}/w.pth.\n"


def test_torchvisions_mobilenet_equals_numpy(tmp_path):
    """Images are scaled as its weights have them, whatever the data's statistics."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    state, given = reference.StateDict(0), images(64, 3)
    scaled = (given / 255 - mean) / std
    logits = reference.mobilenet_v2(
        state, scaled.transpose(0, 3, 1, 2), 8, QUARTER, 1280, 5, stride=2
    )
    writer.save_safetensors(tmp_path / "w.safetensors", dict(state))
    student = started(
        tmp_path / "w.safetensors",
        Shapes(5, (64, 64, 3), (0.0,) * 3, (2.0,) * 3),
        **{"model": "mobilenet_v2", "width": 0.25, "stem": "imagenet"},
    )
    got = np.asarray(student(given.astype("float32"))["exit_4"])
    atol = 1e-4 * np.abs(logits).max()
    np.testing.assert_allclose(got, logits, rtol=0, atol=atol)


@pytest.mark.parametrize("what", ["other classes", "no last exit", "another task"])
def test_a_last_exit_that_the_file_lacks_starts_anew(tmp_path, what, capsys):
    state = save_resnet10(tmp_path / "w.pth", classes=10 - 3 * (what[:5] == "other"))
    if what == "no last exit":
        state = {n: v for n, v in state.items() if not n.startswith("linear")}
        writer.save_state(tmp_path / "w.pth", state)
    task = {"task": "multi_label"} if what == "another task" else {}
    student = started(tmp_path / "w.pth", exits="2,4", **task)
    assert "but for exit_2, exit_4, which start anew" in capsys.readouterr().out
    stem = student.get_layer("stem_conv").kernel
    wanted = np.transpose(state["conv1.weight"], (2, 3, 1, 0))
    np.testing.assert_array_equal(stem, wanted.astype("float32"))
    last = np.asarray(student.get_layer("exit_4").kernel)
    assert last.shape == (32, 10)
    if what == "another task":  # whose answers are as many
        assert not np.array_equal(last, np.float32(state["linear.weight"].T))


def test_what_the_file_gives_can_be_frozen(tmp_path):
    save_resnet10(tmp_path / "w.pth", classes=7)
    student = started(tmp_path / "w.pth", freeze="backbone")
    trained = {v.path.split("/")[0] for v in student.trainable_variables}
    assert trained == {"exit_1", "exit_2", "exit_3", "exit_4"}


def test_the_layers_that_got_weights_are_told(tmp_path):
    state = save_resnet10(tmp_path / "w.pth", classes=7)
    model = create_model("resnet10", 10, input_shape=(8, 8, 1), width=1 / 16)
    with pytest.raises(UserError, match=r"must become \(32, 10\)"):
        load_torch_weights(model, state)
    given = [layer.name for layer in init_torch_weights(model, state)]
    assert given[:2] == ["stem_conv", "stem_bn"] and "exit_4" not in given


WRONG = [  # change of the student, message
    (
        {"model": "resnet18"},
        "lacks .* names, first 'layer1.1.conv1.weight' .nearest: 'layer1.0.conv1.weig",
    ),
    (
        {"model": "vgg8", "exit_head": "dense"},
        "fit vgg8: the file lacks .* first 'block0.0.weight' .nearest: '",
    ),
    ({"width": 1 / 8}, r"must become \(3, 3, 1, 8\) for resnet10, got \(3, 3, 1, 4\)"),
    ({"exits": "1,2"}, "has unknown .* and a model with its stem and its last exit"),
    ({"model": "mobilenet_v1"}, "knows the ResNets, .* got 'mobilenet_v1'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_the_file_of_another_network_is_refused(tmp_path, change, message):
    save_resnet10(tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        started(tmp_path / "w.pth", **change)


def test_names_of_the_other_stem_are_refused_with_the_nearest(tmp_path):
    save_resnet10(tmp_path / "w.pth")
    message = (
        "first 'layer2.0.downsample.0.weight' (nearest: 'layer2.0.shortcut.0.weight')"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        started(tmp_path / "w.pth", Shapes(10, (40, 40, 1)), stem="imagenet")


MISTAKES = [
    (
        {"init_weights": "w.pth", "init_flagfile": "a.flags"},
        "w.pth and --init_flagfile=a.flags both initialise the student: drop one",
    ),
    (
        {"init_weights": "w.pth", "init_stage": "ab", "pair_flagfile": "a.flags"},
        "w.pth and --init_stage=ab both initialise the student: drop one",
    ),
    (
        {"init_weights": "w.pth", "model": "a.keras"},
        "w.pth is for the library's networks, --model=a.keras is your own: start",
    ),
    (
        {"init_weights": "no.pth"},
        "No file of PyTorch weights at 'no.pth', which --init_weights names: check",
    ),
    ({"freeze": "backbone"}, "needs --init_flagfile, --init_weights or a --model of"),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_mistakes_are_found_before_anything_is_built(settings, message):
    with pytest.raises(UserError, match=message):
        inputs.check_inputs(Config(**settings))


@pytest.mark.run
def test_a_run_starts_from_the_file_and_remembers_it(tmp_path, capsys):
    save_resnet10(tmp_path / "w.pth")
    config = dataclasses.replace(
        OWN,
        **{**THIN, "exits": "2,4", "freeze": "backbone"},
        init_weights=str(tmp_path / "w.pth"),
        run_dir=str(tmp_path / "run"),
    )
    experiment.run(config)
    said = capsys.readouterr().out
    assert said.count("w.pth but for exit_2, which start anew.") == 1
    (tmp_path / "run" / "result.json").unlink()
    save_resnet10(tmp_path / "w.pth", seed=1)
    with pytest.raises(UserError, match="The weights file at .* is not the one that"):
        experiment.run(config)
