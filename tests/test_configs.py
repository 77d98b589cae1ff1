"""Every flagfile of the repository parses, builds and takes one step, narrowed."""

import dataclasses
import functools
import pathlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tf_mskd.models import resnet
from tf_mskd.runs import build
from tf_mskd.runs.config import Config
from tf_mskd.runs.flags import read_flagfile, to_flagfile
from tf_mskd.utils.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
FLAGFILES = sorted(p.relative_to(ROOT) for p in CONFIGS.rglob("*.flags"))
PARTS = ("base", "pairs", "methods")  # not whole runs
RUNS = [p for p in FLAGFILES if p.parent.name not in PARTS]
WIDTH = 1 / 16
ROWS = 4
CLASSES = {"digits": 10, "cifar100": 100, "tiny_imagenet": 200}
SIDES = {"digits": 8, "cifar100": 32, "tiny_imagenet": 64}


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What `build_student` asks of a data set."""

    num_classes: int
    image_shape: tuple
    mean: tuple | None = None
    std: tuple | None = None


@functools.cache
def batch(dataset):
    """Four real digits in the size and number of channels of a data set."""
    side, channels = SIDES[dataset], 1 if dataset == "digits" else 3
    digits = load_digits()
    images = digits.images[:ROWS].repeat(side // 8, 1).repeat(side // 8, 2)
    images = np.repeat(images[..., None] * 15, channels, -1).astype("uint8")
    return images, digits.target[:ROWS].astype("int32")


def batch_for(dataset, method):
    """The batch with all targets that a method reads."""
    images, label = batch(dataset)
    targets = {"label": label, "index": np.arange(ROWS, dtype="int32")}
    for key in set(method.target_keys) & {"other_image", "second_view"}:
        targets[key] = images[::-1].copy()
    if "negatives" in method.target_keys:
        drawn = np.arange(ROWS, ROWS + method.num_negatives, dtype="int32")
        targets["negatives"] = np.tile(drawn, (ROWS, 1))
    return images, targets


def narrowed(path):
    """The flagfile's configuration at a width that builds in seconds."""
    config = read_flagfile(path)
    return dataclasses.replace(config, width=WIDTH)


def shapes_of(config):
    """Classes and image shape of the configuration's data set."""
    images, _ = batch(config.dataset)
    return Shapes(CLASSES[config.dataset], images.shape[1:])


@functools.cache
def untrained(flagfile):
    """The network of a flagfile, built but not trained; None for no flagfile."""
    if not flagfile:
        return None
    config = narrowed(flagfile)
    return build.build_network(config, shapes_of(config))


@pytest.mark.parametrize("method", ["mskd", "kd,at"])
def test_a_map_of_exits_is_for_methods_that_take_one(method):
    config = Config(exit_map="1:2", method=method)
    with pytest.raises(UserError, match=f"argument of method '{method}' 'exit_map'"):
        build.build_method(config)


@pytest.fixture(autouse=True, scope="module")
def shallow():
    """Deep ResNets with two blocks a stage: it is the flagfiles that are tested."""
    whole = dict(resnet.BLOCKS)
    resnet.BLOCKS.update(
        {n: (block, tuple(min(d, 2) for d in ds)) for n, (block, ds) in whole.items()}
    )
    yield
    resnet.BLOCKS.update(whole)


def test_there_are_flagfiles_for_every_data_set():
    assert {p.parts[1] for p in FLAGFILES} >= {"base", "digits", "cifar100"}
    assert len(RUNS) > 40


@pytest.mark.parametrize("path", RUNS, ids=str)
def test_flagfile_builds_and_takes_one_step(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = narrowed(path)
    method = build.build_method(config, num_examples=50_000)
    distiller = build.build_distiller(
        config,
        shapes_of(config),
        untrained(config.teacher_flagfile),
        untrained(config.init_flagfile),
        method,
    )
    # of one step an epoch: a warm-up starts at a rate of 0, half an epoch has none
    build.compile_distiller(distiller, config, steps_per_epoch=1)
    before = [v.numpy() for v in distiller.student.trainable_variables]
    logs = distiller.train_step(batch_for(config.dataset, method))
    assert np.isfinite(float(logs["loss"])), path
    after = [v.numpy() for v in distiller.student.trainable_variables]
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert any(changed), path
    weight = distiller.term_weights.get("ce")
    if config.phases == "joint" and weight is not None and float(weight) > 0:
        reached = [
            v.path
            for v, c in zip(distiller.student.trainable_variables, changed, strict=True)
            if not c
        ]
        assert not reached, f"{path}: {reached} did not move"


@pytest.mark.parametrize("path", RUNS, ids=str)
def test_flagfile_says_how_to_run_it(path):
    text = (ROOT / path).read_text()
    assert f"--flagfile={path}" in text.split("# Run:")[1].splitlines()[0]


@pytest.mark.parametrize("path", FLAGFILES, ids=str)
def test_resolved_flags_read_back(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    try:
        config = read_flagfile(path)
    except UserError as error:  # a part may be incomplete alone
        assert path.parent.name in PARTS, error
        return
    copy = tmp_path / "flags.txt"
    copy.write_text(to_flagfile(config))
    assert read_flagfile(copy) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": -1.0}, r"--width must be in \[0, inf\], got -1.0"),
        ({"lr": float("nan")}, r"--lr must be in \[0, inf\], got nan"),
        ({"exit_head": "dnse"}, "--exit_head must be one of dense, .* got 'dnse'"),
        ({"exits": "1;2"}, "--exits must be numbers such as 1,2,3, got '1;2'"),
        ({"lr_drops": "a"}, "--lr_drops must be numbers"),
        ({"term_weights": "ce=1"}, "--term_weights must be pairs such as ce:0.1"),
        ({"teacher": "a", "teacher_flagfile": "b"}, "not both"),
        ({"phase_epochs": "1,2"}, "needs --phases=progressive, got --phases=joint"),
        ({"freeze": "backbone"}, "--freeze=backbone needs --init_flagfile"),
        ({"untrained_teacher": True}, "--untrained_teacher needs --teacher_flagfile"),
    ],
)
def test_contradictions_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Config(**values)
