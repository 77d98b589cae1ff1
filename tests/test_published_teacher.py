"""A network of the library with published PyTorch weights as --teacher."""

import dataclasses

import numpy as np
import pytest

from tests.models import numpy_networks as reference
from tests.models import torch_writer as writer
from tests.support import OWN, Shapes
from tf_mskd.models import create_model, load_torch_weights
from tf_mskd.runs import experiment, inputs, networks, plan
from tf_mskd.runs.config import Config
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.runs.result import read_result
from tf_mskd.utils.errors import UserError

DIGITS = Shapes()
THIN = "resnet10?width=0.0625&weights="


def save_resnet10(path, seed=0, classes=10):
    state = reference.StateDict(seed)
    image = np.zeros((1, 1, 8, 8))
    reference.resnet(state, image, reference.basic_block, (1, 1, 1, 1), 4, classes)
    writer.save_state(path, dict(state))
    return dict(state)


def test_a_teacher_has_the_weights_of_the_file(tmp_path):
    state = save_resnet10(tmp_path / "w.pth")
    teacher = networks.load_network(f"{THIN}{tmp_path}/w.pth", DIGITS)
    same = create_model("resnet10", 10, input_shape=(8, 8, 1), width=1 / 16)
    load_torch_weights(same, state)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1))
    assert list(teacher.output) == ["exit_4"]
    np.testing.assert_array_equal(teacher(images)["exit_4"], same(images)["exit_4"])


@pytest.mark.parametrize(
    ("stem", "wanted"),
    [("imagenet", [(1 - 0.485) / 0.229, -0.456 / 0.224]), ("small", [0.5, 0.0])],
)
def test_images_are_scaled_as_the_weights_have_them(tmp_path, stem, wanted):
    """With the stem of ImageNet by its statistics, else by those of the data."""
    source = Shapes(5, (40, 40, 3), (0.0,) * 3, (2.0,) * 3)
    state, image = reference.StateDict(0), np.zeros((1, 3, 40, 40))
    forward = reference.resnet
    if stem == "imagenet":
        forward = reference.torchvision_resnet
    forward(state, image, reference.basic_block, (2, 2, 2, 2), 4, 5)
    writer.save_safetensors(tmp_path / "w.safetensors", state)
    text = f"resnet18?stem={stem}&width=0.0625&weights={tmp_path}/w.safetensors"
    teacher = networks.load_network(text, source)
    scaled = teacher.get_layer("input_scaling")(np.array([[[[255.0, 0.0, 0.0]]]]))
    np.testing.assert_allclose(np.ravel(scaled)[:2], wanted, rtol=1e-5, atol=1e-6)


MISTAKES = [
    (
        {"teacher": "resnet35?weights=w.pth"},
        "Unknown network 'resnet35' of --teacher; did you mean 'resnet",
    ),
    ({"teacher": "resnet34?stem=imagenet"}, "has no weights: name a file, weights=P"),
    (
        {"teacher": "resnet34?stems=small&weights=w.pth"},
        "argument of --teacher=resnet34 'stems'; did you mean 'stem'",
    ),
    (
        {"teacher": "resnet34?stem=imagnet&weights=w.pth"},
        "Unknown stem of --teacher=resnet34 'imagnet'; did you mean 'imagenet'",
    ),
    (
        {"teacher": "resnet34?width=x&weights=w.pth"},
        "--teacher: width takes a value like 1.0, got 'x'",
    ),
    (
        {"teacher": "resnet34?weights=no.pth"},
        "No model file at 'no.pth', which --teacher=resnet34",
    ),
    (
        {"teacher": "resnet34"},
        r"is a network without weights: .*--teacher='resnet34\?weights=PATH'",
    ),
    (
        {"model": "resnet34?weights=w.pth"},
        "names weights, which a --teacher takes: .*--model=resnet34, with --stem",
    ),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_mistakes_are_found_before_anything_is_built(settings, message):
    with pytest.raises(UserError, match=message):
        inputs.check_inputs(Config(**settings))


def test_weights_of_other_classes_or_another_stem_are_refused(tmp_path):
    save_resnet10(tmp_path / "w.pth", classes=7)
    text = f"{THIN}{tmp_path}/w.pth"
    with pytest.raises(UserError, match=r"must become \(32, 10\) .* got \(32, 7\)"):
        networks.load_network(text, DIGITS)
    other, rgb = text.replace("?", "?stem=imagenet&"), Shapes(7, (40, 40, 3))
    with pytest.raises(UserError, match="a model with its stem and its last exit"):
        networks.load_network(other, rgb)


@pytest.mark.run
def test_a_student_learns_from_published_weights_without_a_teacher_run(tmp_path):
    save_resnet10(tmp_path / "w.pth")
    config = dataclasses.replace(
        OWN,
        taps="one",
        method="mskd",
        teacher=f"{THIN}{tmp_path}/w.pth",
        run_dir=str(tmp_path / "run"),
    )
    (planned,) = plan.plan(config)
    assert planned.teacher == config.teacher
    experiment.run(config)
    finished = FinishedRun(config.run_dir)
    assert read_result(finished.paths.result).teacher == "resnet10"
    student = finished.student()
    assert list(finished.teacher(student).output) == ["exit_4"]
    save_resnet10(tmp_path / "w.pth", seed=1)
    with pytest.raises(UserError, match="is not the one that .* was trained with"):
        finished.teacher(student)
