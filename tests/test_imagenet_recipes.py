"""The recipes for ImageNet on a small folder, narrowed, as docs/imagenet.md tells."""

import dataclasses

import keras
import numpy as np
import pytest
from PIL import Image

from tests.models import numpy_networks as reference
from tests.models import torch_writer as writer
from tests.support import ROOT
from tf_mskd import models
from tf_mskd.runs import experiment, plan
from tf_mskd.runs.build import build_method
from tf_mskd.runs.data import Data
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.runs.flags import read_flagfile, read_flags
from tf_mskd.runs.own_student import build_own_student

SIDE, CLASSES, WIDTH = 32, 3, 1 / 16
SMALL = [
    "--dataset=folder",
    f"--image_size={SIDE}",
    "--batch_size=6",
    "--eval_batch_size=6",
    "--tensorboard=false",
    "--lr_drops=",
]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight training and two test images of each class, 40x48, as JPEG files."""
    root, generator = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for name in range(CLASSES):
            path = root / split / f"n{name:08d}"
            path.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (40, 48, 3), dtype="uint8")
                Image.fromarray(pixels).save(path / f"{number}.JPEG")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A narrow ResNet-34 in a file as torchvision's."""
    state, image = reference.StateDict(0), np.zeros((1, 3, SIDE, SIDE))
    block, depths = reference.basic_block, (3, 4, 6, 3)
    reference.torchvision_resnet(state, image, block, depths, 4, CLASSES)
    path = tmp_path_factory.mktemp("weights") / "resnet34.pth"
    writer.save_state(path, dict(state))
    return path


@pytest.fixture(scope="module")
def plain(weights):
    """The `.keras` file of these weights, made as the page tells."""
    teacher = models.create_model(
        "resnet34",
        CLASSES,
        stem="imagenet",
        input_shape=(SIDE, SIDE, 3),
        width=WIDTH,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    models.load_torch_weights(teacher, weights)
    logits = keras.layers.Identity(name="logits")(teacher.output["exit_4"])
    keras.Model(teacher.input, logits).save(weights.with_suffix(".keras"))
    return weights.with_suffix(".keras")


def small(name, folder, *more):
    """The configuration of a recipe on the folder, of one epoch."""
    path = f"--flagfile=configs/imagenet2012/{name}.flags"
    return read_flags([path, *SMALL, f"--data_dir={folder}", "--epochs=1", *more])


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What `build_own_student` asks of a data set."""

    num_classes: int = CLASSES
    image_shape: tuple = (SIDE, SIDE, 3)


OWN_VIEWS = {  # method with an augmentation of its own -> the flag for windows
    "ccd": "--second_augment=source_crop,jda,flip",
    "oto_star": "--augment=source_crop,flip,autoaugment",
    "sskd": "--augment=source_crop,flip",
}


@pytest.mark.parametrize("method", OWN_VIEWS)
def test_methods_with_an_augmentation_of_their_own_see_windows(folder, method):
    """The first batch of each, and of the second view: other windows of the images."""
    config = read_flags(
        [
            "--flagfile=configs/pairs/imagenet2012_resnet34_resnet18.flags",
            f"--flagfile=configs/methods/{method}.flags",
            *SMALL,
            f"--data_dir={folder}",
            OWN_VIEWS[method],
        ]
    )
    made = build_method(config, 24)
    data = Data(config, made)
    images, targets = next(iter(data.train_stream(0)))
    index = targets["index"].numpy()
    assert images.shape == (6, SIDE, SIDE, 3)
    whole = data.source.train.images[index]
    views = [images, *([targets["second_view"]] if method == "ccd" else [])]
    for view in views:
        assert (np.asarray(view) != whole).any((1, 2, 3)).all()
    if method == "ccd":
        assert (views[0] != views[1]).numpy().any((1, 2, 3)).all()


def test_the_rates_are_those_of_the_sources():
    step = read_flagfile("configs/base/imagenet_step.flags")
    assert step.lr / step.batch_size == pytest.approx(0.2 / 512)
    modern = read_flagfile("configs/base/imagenet_modern.flags")
    every_32nd = 2e-5 * modern.batch_size * 32 / modern.epochs
    assert modern.ema == pytest.approx((1 - every_32nd) ** (1 / 32), abs=5e-6)


def test_heads_on_published_weights_leave_the_last_exit_as_it_is(plain, folder):
    config = small("resnet34_exits", folder, f"--model={plain}")
    student = build_own_student(config, Shapes())
    images = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3))
    outputs = student(images)
    assert list(outputs) == ["exit_1", "exit_2", "exit_3", "exit_4"]
    published = keras.saving.load_model(plain)(images)
    np.testing.assert_allclose(outputs["exit_4"], published, rtol=1e-5, atol=1e-5)
    trained = {v.path.split("/")[0].split("_")[0] for v in student.trainable_variables}
    assert trained == {"exit"}  # the heads' layers alone


def test_a_chain_lists_what_it_trains_first(plain, weights, monkeypatch):
    monkeypatch.chdir(plain.parent)
    folders = {}
    for name in ("oto", "atf"):
        path = ROOT / f"configs/imagenet2012/{name}_resnet34_resnet18.flags"
        config = read_flagfile(str(path), run_dir=f"runs/{name}")
        if name == "atf":  # whose other teacher is a file too
            (plain.parent / "resnet18-f37072fd.pth").touch()
        folders[name] = [run.name for run in plan.plan(config)]
    assert folders["oto"] == ["resnet34_exits", "oto"]
    assert folders["atf"] == ["resnet34_for_resnet18", "atf"]


@pytest.mark.run
def test_kd_and_oto_run_from_published_weights(folder, weights, plain, tmp_path):
    published = f"resnet34?stem=imagenet&width={WIDTH}&weights={weights}"
    kd = small(
        "kd_resnet34_resnet18",
        folder,
        f"--teacher={published}",
        f"--width={WIDTH}",
        f"--run_dir={tmp_path / 'kd'}",
    )
    assert experiment.run(kd).teacher == "resnet34"
    exits = tmp_path / "resnet34_exits"
    heads = small("resnet34_exits", folder, f"--model={plain}", f"--run_dir={exits}")
    experiment.run(heads)
    oto = small(
        "oto_resnet34_resnet18",
        folder,
        "--teacher_flagfile=",
        f"--teacher={exits}",
        f"--width={WIDTH}",
        f"--run_dir={tmp_path / 'oto'}",
    )
    experiment.run(oto)
    student = FinishedRun(oto.run_dir).student()
    assert list(student.output) == ["exit_1", "exit_2", "exit_3", "exit_4"]


@pytest.mark.run
def test_a_student_is_put_on_the_modern_recipe(folder, weights, tmp_path):
    published = f"resnet34?stem=imagenet&width={WIDTH}&weights={weights}"
    config = small(
        "mskd_resnet34_resnet18",
        folder,
        "--flagfile=configs/base/imagenet_modern.flags",
        *SMALL,
        "--warmup_epochs=1",
        "--epochs=2",
        f"--teacher={published}",
        f"--width={WIDTH}",
        f"--run_dir={tmp_path / 'run'}",
    )
    assert config.mixup and config.cutmix and config.repeats == 4
    result = experiment.run(config)
    assert 0 <= result.test["ensemble"] <= 1
