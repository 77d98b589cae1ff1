"""Segmentation in training: every method for it, exits of any network, whole runs."""

import dataclasses
import functools

import keras
import numpy as np
import pytest

from tests.support import SMALL
from tf_mskd import SGD, Distiller, UserError, add_exits, create_model
from tf_mskd.data.nuclei import load_nuclei
from tf_mskd.methods.common import registry
from tf_mskd.methods.common.create import create_method
from tf_mskd.runs import evaluation, experiment
from tf_mskd.runs.finished_run import FinishedRun

pytestmark = pytest.mark.run

SETTINGS = {
    "input_shape": (32, 32, 1),
    "exit_head": "linear",
    "width": 1 / 16,
    "task": "segmentation",
}
MADE_FOR = registry.available_methods("segmentation")
READ_VECTORS = ("cc", "pkt", "rkd")  # which no map has
NEED_HEADS = ("ft", "paraphraser")
ONE_EXIT = ("kd",)


@pytest.fixture(scope="module")
def batch():
    source = load_nuclei(32)
    return source.train.images[:8], source.train.labels[:8]


def networks(method, exits):
    student = create_model("resnet10", 3, exits=exits, **SETTINGS)
    needs = create_method(method).needs_teacher
    return student, create_model(
        "resnet10", 3, exits=exits, **SETTINGS
    ) if needs else None


def distiller_of(method):
    exits = (2,) if method in ONE_EXIT else (1, 2)
    made = Distiller(*networks(method, exits), method, task="segmentation")
    made.compile(SGD(0.01), run_eagerly=True, jit_compile=False)
    return made


@pytest.mark.parametrize("name", MADE_FOR)
def test_every_method_for_maps_learns_or_says_what_it_lacks(name, batch):
    if name in READ_VECTORS + NEED_HEADS:
        with pytest.raises(UserError, match="reads (embedding|factor|reconstruction)"):
            distiller_of(name)
        return
    distiller = distiller_of(name)
    before = distiller.student.get_weights()
    logs = {n: float(v) for n, v in distiller.train_step(batch).items()}
    assert np.isfinite(list(logs.values())).all(), logs
    assert 0 <= logs["ensemble_pixel_accuracy"] <= 1
    pairs = zip(before, distiller.student.get_weights(), strict=True)
    assert any((a != b).any() for a, b in pairs)


@pytest.mark.parametrize("name", ["mskd", "oto", "cwd", "pairwise", "fckd", "at"])
def test_equal_networks_have_nothing_to_imitate(name, batch):
    student = create_model("resnet10", 3, exits="last", **SETTINGS)
    teacher = keras.models.clone_model(student)
    teacher.set_weights(student.get_weights())
    distiller = Distiller(student, teacher, name, task="segmentation")
    outputs = distiller(batch[0], training=False)
    guide = distiller.teacher_outputs(batch[0])
    both = distiller._networks.student(distiller.exits)(batch[0], training=False)
    terms = distiller.method({**both, **outputs}, guide, {"label": batch[1]})
    for term, value in terms.items():
        # what the teacher's attention strengthens is not what the student says
        if not term.startswith(("ce/", "fckd_")):
            np.testing.assert_allclose(value, 0, atol=1e-5, err_msg=term)


def test_exits_of_larger_images_are_a_quarter_of_them():
    large = {**SETTINGS, "input_shape": (192, 160, 1)}
    made = create_model("resnet10", 3, exits=(1, 4), **large)
    assert {t.shape for t in made.output.values()} == {(None, 48, 40, 3)}


def test_foreign_networks_get_exits_for_maps(batch):
    def trunk_of():
        image = keras.Input((32, 32, 1))
        x = keras.layers.Conv2D(4, 3, 2, padding="same", name="one")(image)
        return image, keras.layers.Conv2D(6, 3, 2, padding="same", name="two")(x)

    trunk = keras.Model(*trunk_of())
    image, x = trunk_of()
    student = add_exits(trunk, ["one"], 3, task="segmentation", verbose=False)
    assert {t.shape for t in student.output.values()} == {(None, 32, 32, 3)}
    up = keras.layers.UpSampling2D(4)(x)
    whole = keras.Model(image, keras.layers.Conv2D(3, 1)(up))  # its own, one output
    distiller = Distiller(student, whole, "mskd", task="segmentation")
    distiller.compile("sgd", run_eagerly=True, jit_compile=False)
    assert np.isfinite(float(distiller.train_step(batch)["loss"]))
    flat = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    with pytest.raises(UserError, match=r"need a model that ends in a map .*top=False"):
        add_exits(flat, ["one"], 3, task="segmentation")
    with pytest.raises(UserError, match=r"must be a map \[B, h, w, classes\], got"):
        Distiller(flat, whole, "mskd", task="segmentation")
    with pytest.raises(UserError, match=r"needs exits \[B, h, w, classes\]|be logits"):
        Distiller(student, whole, "mskd")
    soft = keras.Model(image, keras.layers.Softmax()(whole.output))
    with pytest.raises(UserError, match=r"probabilities \(softmax\)"):
        Distiller(soft, whole, "mskd", task="segmentation")


def test_a_run_of_maps(tmp_path):
    config = dataclasses.replace(
        SMALL,
        dataset="nuclei",
        task="segmentation",
        augment="crop,flip,rotate",
        run_dir=str(tmp_path / "teacher"),
        batch_size=8,
        eval_batch_size=16,
        validation_fraction=0.2,
    )
    result = experiment.run(config)
    assert result.metric == "miou" and 0 < result.test["ensemble"] < 1
    assert {"macc", "pixel_accuracy", "iou_0"} <= set(result.test_more)
    run = FinishedRun(config.run_dir)
    assert evaluation.evaluate_run(run)["miou"] == result.test
    assert run.paths.examples.read_bytes().startswith(b"\x89PNG")
    points = evaluation.evaluate_early_exit(run)["thresholds"]
    assert points[-1]["image"] == pytest.approx(result.test["ensemble"], abs=1e-9)
    record = evaluation.export_run(run, tmp_path / "exported")
    assert {entry["file"] for entry in record["files"]} == {
        "saved_model",
        "student_float32.tflite",
    }
    for entry in record["files"]:
        assert set(entry["verification"]) == {"exit_1", "exit_2", "ensemble"}
        assert min(v["same_class"] for v in entry["verification"].values()) > 0.999
    for refused in (
        functools.partial(evaluation.export_run, run, tmp_path / "no"),
        functools.partial(evaluation.evaluate_early_exit, run),
    ):
        with pytest.raises(UserError, match="holds thresholds of classes, the exits"):
            refused(exits_file="exits.json")
    with pytest.raises(UserError, match="answer with one class"):
        evaluation.calibrate_run(run)
    student = dataclasses.replace(
        config, method="oto,fckd", teacher=config.run_dir, run_dir=str(tmp_path / "oto")
    )
    assert experiment.run(student).method == "oto,fckd"
    for wrong, message in (
        ({"dataset": "digits"}, "needs a label for every pixel"),
        ({"task": "classification"}, "answers the task 'segmentation', the student"),
        ({"augment": "autoaugment"}, "Label maps cannot follow the augmentation"),
        ({"method": "dkd"}, "is made for the task classification"),
        ({"image_size": 48}, "have 32, 64 or 128 pixels a side, got 48"),
        ({"method": "oto", "teacher_cache": str(tmp_path / "cache")}, "a feature map"),
    ):
        settings = {"run_dir": str(tmp_path / "_".join(wrong)), **wrong}
        with pytest.raises(UserError, match=message):
            experiment.run(dataclasses.replace(student, **settings))
