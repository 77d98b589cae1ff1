"""The flagfiles, and every method on every pair: read, built, one step, narrowed."""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
import re
import shutil
import tempfile

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tf_mskd import models
from tf_mskd.data.sources import load_source
from tf_mskd.methods.common.registry import method_class
from tf_mskd.models import aux_heads, resnet
from tf_mskd.runs import build
from tf_mskd.runs.config import Config
from tf_mskd.runs.flags import read_flagfile, read_flags, to_flagfile
from tf_mskd.runs.initial_weights import init_task_of
from tf_mskd.runs.own_model import kind_of, read_published
from tf_mskd.runs.stages import required_config
from tf_mskd.utils.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
FLAGFILES = sorted(p.relative_to(ROOT) for p in CONFIGS.rglob("*.flags"))
PARTS = ("base", "pairs", "methods", "stages")  # may be incomplete alone
COMMANDS = [p for p in FLAGFILES if p.parts[1] != "base"]  # that they document
RUNS = [p for p in COMMANDS if p.parts[1] not in ("pairs", "methods")]
FILES = pathlib.Path(tempfile.mkdtemp())  # of `stand_in`, removed at the end
WIDTH = 1 / 16
ROWS = 4
CLASSES = {
    "digits": 10,
    "folder": 2,
    "cifar100": 100,
    "tiny_imagenet": 200,
    "imagenet2012": 1000,
    "nuclei": 3,
    "low_light": 3,
}
SIDES = {
    "digits": 8,
    "folder": 64,
    "cifar100": 32,
    "tiny_imagenet": 64,
    "imagenet2012": 64,
    "nuclei": 64,
    "low_light": 64,
}
# methods with an augmentation of their own, on files; as configs/README.md has it
ON_FILES = {
    "ccd": ["--second_augment=source_crop,jda,flip"],
    "oto_star": ["--augment=source_crop,flip,autoaugment"],
    "sskd": ["--augment=source_crop,flip"],
    "sskd_teacher": ["--augment=source_crop,flip"],
}


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What `build_student` asks of a data set."""

    num_classes: int
    image_shape: tuple
    mean: tuple | None = None
    std: tuple | None = None


@functools.cache
def batch(dataset):
    """Four real digits in the size and number of channels of a data set; or nuclei."""
    if dataset in ("nuclei", "low_light"):
        train = load_source(dataset).train
        return train.images[:ROWS], train.labels[:ROWS].astype("int32")
    side, channels = SIDES[dataset], 1 if dataset == "digits" else 3
    digits = load_digits()
    images = digits.images[:ROWS].repeat(side // 8, 1).repeat(side // 8, 2)
    images = np.repeat(images[..., None] * 15, channels, -1).astype("uint8")
    return images, (digits.target[:ROWS] % CLASSES[dataset]).astype("int32")


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


def documented(path):
    """The flags of the command in a flagfile's head, without --run_dir."""
    head = (ROOT / path).read_text()
    command = re.search(r"^# Run: python -m tf_mskd.train (.*)", head, re.MULTILINE)
    return [flag for flag in command[1].split() if not flag.startswith("--run_dir=")]


def narrowed(path):
    """The flagfile's configuration at a width that builds in seconds."""
    return narrow(read_flagfile(path))


def narrow(config):
    """Narrower: the library's networks, and a file that holds one of them."""
    kind = kind_of(config.model)
    if kind == "file":
        return dataclasses.replace(config, model=stand_in(config.model))
    return dataclasses.replace(config, width=WIDTH) if kind == "name" else config


@functools.cache
def stand_in(file):
    """A narrow network, untrained, in the file that a run reads published ones from."""
    side = SIDES["imagenet2012"]
    network = models.create_model(
        pathlib.Path(file).stem,
        CLASSES["imagenet2012"],
        exits="last",
        stem="imagenet",
        input_shape=(side, side, 3),
        width=WIDTH,
    )
    path = FILES / file
    logits = keras.layers.Identity(name="logits")(network.output["exit_4"])
    keras.Model(network.input, logits).save(path)
    return str(path)


def shapes_of(config):
    """Classes and image shape of the configuration's data set."""
    images, _ = batch(config.dataset)
    return Shapes(CLASSES[config.dataset], images.shape[1:])


def untrained(config, role):
    """The network that a run needs first, built but not trained; None for none."""
    required = required_config(config, role)
    required = required and narrow(required)
    return required and build.build_network(required, shapes_of(required))


@functools.cache
def prepared(flagfile):
    """A teacher that has been through every stage: all exits and heads."""
    if not flagfile:
        return None
    config = narrowed(flagfile)
    source = shapes_of(config)
    return models.create_model(
        config.model,
        source.num_classes,
        exits="all",
        input_shape=source.image_shape,
        stem=config.stem,
        width=WIDTH,
        aux_heads=tuple(aux_heads.KINDS),
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """A run: what flagfiles say, one of a whole run or a pair's and a method's."""

    name: str
    config: Config
    is_composed: bool

    def __str__(self):
        return self.name


def all_cases():
    """Every whole run, and every method on every pair."""
    cases = [Case(str(path), read_flags(documented(path)), False) for path in RUNS]
    for parts in itertools.product(
        sorted((CONFIGS / "pairs").glob("*.flags")),
        sorted((CONFIGS / "methods").glob("*.flags")),
    ):
        name = "+".join(path.stem for path in parts)
        config = read_flags(composed(*parts))
        tasks = method_class(config.method).tasks if "," not in config.method else ()
        if not tasks or config.task in tasks:
            cases.append(Case(name, config, True))
    return cases


def composed(pair, method):
    """The flags of a pair with a method."""
    flags = [f"--flagfile={pair}", f"--flagfile={method}"]
    if read_flagfile(pair).cuts_files:
        flags += ON_FILES.get(method.stem, [])
    return flags


def first_of_each(cases, key):
    """The first case of each value of `key(config)`, those of small images first."""
    first = {}
    for case in sorted(cases, key=lambda case: SIDES[case.config.dataset]):
        first.setdefault(repr(key(case.config)), case)
    return list(first.values())


def method_setting(config):
    names = ("method", "method_args", "phases", "freeze", "exits", "exit_head")
    return [getattr(config, name) for name in names]


def networks(config):
    """Data set, student, teacher and start."""
    flagfiles = config.teacher_flagfile, config.init_flagfile
    others = [f and read_flagfile(f).model for f in flagfiles]
    return config.dataset, config.model, config.teacher, *others


with contextlib.chdir(ROOT):  # flagfiles name others from here
    CASES = all_cases()
    SETTINGS = first_of_each(CASES, method_setting)
    NETWORKS = first_of_each(CASES, networks)
COMPOSED = [case for case in CASES if case.is_composed]


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
    shutil.rmtree(FILES, ignore_errors=True)


def test_there_are_flagfiles_for_every_data_set():
    assert {p.parts[1] for p in FLAGFILES} >= {"base", "digits", "methods", "pairs"}
    assert {case.config.dataset for case in CASES} >= set(SIDES)


def test_every_flagfile_documents_a_command(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in COMMANDS:
        assert f"--flagfile={path}" in documented(path), path
        read_flags(documented(path))


def test_every_flagfile_reads_back(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in FLAGFILES:
        try:
            config = read_flagfile(path)
        except UserError as error:  # a part may be incomplete alone
            assert path.parts[1] in PARTS, error
        else:
            assert_reads_back(config, tmp_path, path)


def test_every_pair_with_every_method_reads_back(tmp_path):
    for case in COMPOSED:
        assert_reads_back(case.config, tmp_path, case.name)


def assert_reads_back(config, folder, name):
    copy = folder / "flags.txt"
    copy.write_text(to_flagfile(config))
    assert read_flagfile(copy) == config, name


def teacher_of(case):
    """The network in the teacher's place, untrained; None for none."""
    config = case.config
    if config.teacher:
        name, arguments, _ = read_published("teacher", config.teacher)
        shapes = shapes_of(config)
        size = {"input_shape": shapes.image_shape, "width": WIDTH}
        return models.create_model(name, shapes.num_classes, **size, **arguments)
    if case.is_composed:
        return prepared(config.teacher_flagfile)
    return untrained(config, "teacher")


def built(case):
    """The Distiller of a case, compiled, and its method."""
    config = narrow(case.config)
    method = build.build_method(config, num_examples=50_000)
    distiller = build.build_distiller(
        config,
        shapes_of(config),
        teacher_of(case),
        untrained(config, "init"),
        method,
        init_task_of(config),
    )
    # a warm-up starts at a rate of 0, at which a step moves nothing
    config = dataclasses.replace(config, warmup_epochs=0.0)
    build.compile_distiller(distiller, config, steps_per_epoch=1)
    return distiller, method


def takes_one_step(case):
    """Whether a step has a finite loss and moves what it must."""
    distiller, method = built(case)
    before = [v.numpy() for v in distiller.student.trainable_variables]
    logs = distiller.train_step(batch_for(case.config.dataset, method))
    assert np.isfinite(float(logs["loss"])), case.name
    moved = {
        v.path: not np.array_equal(v.numpy(), old)
        for v, old in zip(distiller.student.trainable_variables, before, strict=True)
    }
    assert any(moved.values()), case.name
    weight = distiller.term_weights.get("ce")
    if case.config.phases == "joint" and weight is not None and float(weight) > 0:
        still = [path for path, has_moved in moved.items() if not has_moved]
        assert not still, f"{case.name}: {still} did not move"


@pytest.mark.run
@pytest.mark.parametrize("case", SETTINGS, ids=str)
def test_one_of_each_setting_of_a_method_takes_one_step(case, monkeypatch):
    monkeypatch.chdir(ROOT)
    takes_one_step(case)


@pytest.mark.run
@pytest.mark.parametrize("case", NETWORKS, ids=str)
def test_one_run_of_each_pair_of_networks_is_built(case, monkeypatch):
    monkeypatch.chdir(ROOT)
    distiller, _ = built(case)
    assert distiller.term_names


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_run_takes_one_step(case, monkeypatch):
    monkeypatch.chdir(ROOT)
    takes_one_step(case)


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
        ({"phase_lr": "restart"}, "needs --phases=progressive, got --phases=joint"),
        (
            {"phase_lr": "restart", "phases": "progressive"},
            "needs --lr_schedule=cosine, got --lr_schedule=step",
        ),
        ({"freeze": "backbone"}, "--freeze=backbone needs --init_flagfile"),
        ({"untrained_teacher": True}, "--untrained_teacher needs --teacher_flagfile"),
        ({"teacher_size": 16}, "--teacher_size=16 needs a teacher: name one with"),
        (
            {"memory": "stream"},
            "--memory=stream is for whole images of a folder or TFDS set, got --data",
        ),
        (
            {"bad_images": "skip", "dataset": "folder", "patch_size": 64},
            "--bad_images=skip is for whole images .* --patch_size=64: drop it",
        ),
        (
            {"augment": "source_crop", "dataset": "digits"},
            "--augment=source_crop is for whole images of a folder or TFDS set",
        ),
        (
            {"augment": "source_crop", "dataset": "folder", "memory": "decoded"},
            "source_crop cuts windows of image files, --memory=decoded keeps no",
        ),
        (
            {"augment": "source_crop", "dataset": "folder", "second_augment": "flip"},
            "must stand in both --augment and --second_augment, .* and flip",
        ),
        (
            {"patch_size": 64},
            "--patch_size=64 is for --dataset=folder, got --dataset=d",
        ),
        (
            {"patch_size": 64, "dataset": "folder", "resize": "squeeze"},
            "--resize=squeeze is for whole images, --patch_size=64 reads square",
        ),
        (
            {"patch_size": 64, "dataset": "folder", "validation_fraction": 0.1},
            "--validation_fraction would put patches of one picture on both sides",
        ),
        ({"augment_fraction": 0.5}, "--augment_fraction=0.5 needs autoaugment, blur"),
        ({"crop_scale": "0.08,1"}, "--crop_scale is for the augmentation 'resized_c"),
        ({"randaugment_magnitude": 5}, "for the augmentation 'randaugment', which"),
        ({"erase_fill": "black"}, "--erase_fill is for the augmentation 'erase'"),
        (
            {"repeats": 3, "cached_augmentations": 2},
            "--repeats=3 needs as many --cached_augmentations, of which there are 2",
        ),
        ({"repeats": 9, "teacher_cache": "a"}, "--repeats=9 needs as many .* are 8"),
        ({"teacher": "a", "teacher_size": -1}, "--teacher_size must be in"),
    ],
)
def test_contradictions_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Config(**values)
