"""Whole runs under JAX: the losses of TensorFlow's, resume, and what is refused."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.support import ROOT
from tf_mskd.data import counter_random, sources
from tf_mskd.data.augment import make_augment
from tf_mskd.data.npz_file import load_npz, write_npz
from tf_mskd.models.saving import load_model
from tf_mskd.on_jax import counter_random as in_numpy
from tf_mskd.on_jax.experiment import check_config
from tf_mskd.runs import experiment
from tf_mskd.runs.flags import read_flags
from tf_mskd.utils.errors import UserError

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None,
    reason="JAX is not installed: pip install jax to run the library on it",
)
STEPS = 22
ROW = [  # VGG-13 to VGG-8 as the benchmark trains them, narrowed
    "--flagfile=configs/base/cifar100.flags",
    "--dataset=digits",
    "--width=0.0625",
    "--exits=all",
    "--exit_head=linear",
    "--train_fraction=0.25",
    "--batch_size=16",
    "--epochs=1",
    "--lr_schedule=constant",
    "--lr=0.001",
    "--tensorboard=false",
]
PROGRAM = """
import os
import signal
import sys


class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tensorflow_datasets"):
            raise ImportError("TensorFlow must not be needed here")


sys.meta_path.insert(0, NoTensorFlow())
import jax

from tf_mskd.on_jax import experiment
from tf_mskd.on_jax.loop import JaxLoop
from tf_mskd.runs.flags import read_flags
from tf_mskd.training.stopping import Stopped

folder, *arguments = sys.argv[1:]
run_of = lambda name: read_flags([*arguments, f"--run_dir={folder}/{name}"])
experiment.run(run_of("whole"))

once, JaxLoop.calls = JaxLoop.run, 0


def stopped(self, steps):
    if self.calls == 1:  # the first call does one step
        os.kill(os.getpid(), signal.SIGTERM)
    self.calls += 1
    return once(self, steps)


JaxLoop.run = stopped
try:
    experiment.run(run_of("stopped"))
except Stopped as stop:
    print(stop.text)
JaxLoop.run = once
experiment.run(run_of("stopped"))
jax.default_backend = lambda: "an accelerator"  # where a call has a loop of its own
experiment.run(run_of("looped"))
assert "tensorflow" not in sys.modules
"""


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    write_npz(path, sources.load_source("digits", image_size=32))
    return path


def python(*arguments, **options):
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, **options
    )
    return done


@needs_jax
@pytest.mark.run
def test_a_run_has_the_losses_of_tensorflow_and_resumes(npz, tmp_path):
    flags = [*ROW, f"--data_dir={npz}"]
    files = {}
    for name, model in (("teacher", "vgg13"), ("start", "vgg8")):
        files[name] = tmp_path / f"{name}.flags"
        files[name].write_text("\n".join([*flags, f"--model={model}", "--method=ce"]))
    flags += [
        "--model=vgg8",
        "--method=oto",
        "--epochs=2",
        f"--teacher_flagfile={files['teacher']}",
        f"--init_flagfile={files['start']}",
        f"--teacher_run_dir={tmp_path}/teacher",
        f"--init_run_dir={tmp_path}/start",
    ]
    experiment.run(read_flags([*flags, f"--run_dir={tmp_path}/tensorflow"]))
    done = python("-c", PROGRAM, tmp_path, *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Checkpoint saved; run the same command" in done.stdout
    names = ("tensorflow", "whole", "stopped", "looped")
    texts = {n: (tmp_path / n / "metrics.jsonl").read_text() for n in names}
    lines = {n: list(map(json.loads, texts[n].splitlines())) for n in names}
    for ours, reference in zip(lines["whole"], lines["tensorflow"], strict=True):
        assert ours["learning_rate"] == reference["learning_rate"]
        losses = [name for name in reference if name == "loss" or "/" in name]
        assert len(losses) == 9
        for name in losses:
            near = dict(rtol=1e-4, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(ours[name], reference[name], **near)
    whole, again = (load_model(tmp_path / name) for name in ("whole", "stopped"))
    for a, b in zip(whole.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    for name in ("tensorflow", "looped"):
        for a, b in zip(
            whole.weights, load_model(tmp_path / name).weights, strict=True
        ):
            np.testing.assert_allclose(a, b, 2e-3, 2e-4, err_msg=f"{name} {a.path}")


@pytest.mark.parametrize(
    "flag",
    [
        "--mixup=0.2",
        "--cutmix=1.0",
        "--repeats=2",
        "--augment=crop,flip,randaugment",
        "--augment=trivialaugment",
        "--augment=erase",
    ],
)
def test_recipes_that_tensorflow_alone_has_are_refused_by_name(flag):
    config = read_flags([*ROW, "--model=vgg8", "--method=ce", flag])
    with pytest.raises(UserError, match=f"{flag} needs the TensorFlow backend"):
        check_config(config)


@needs_jax
@pytest.mark.run
@pytest.mark.parametrize(
    "flags, told",
    [
        (["--phases=progressive", "--exits=all"], "--phases=progressive"),
        (["--augment=crop,rotate"], "--augment=crop,rotate"),
        (["--method=dml", "--untrained_teacher"], "--method=dml"),
        (["--strategy=mirrored"], "--strategy=mirrored"),
        (["--memory=stream", "--dataset=folder"], "--memory=stream"),
        (["--profile_steps=2,3"], "--profile_steps=2,3"),
    ],
)
def test_what_needs_tensorflow_is_refused_in_one_line(flags, told, npz, tmp_path):
    arguments = [*ROW, f"--data_dir={npz}", "--model=vgg8", "--method=ce", *flags]
    if "dml" in told:
        arguments.append("--teacher_flagfile=configs/digits/student.flags")
    done = python("-m", "tf_mskd.train", *arguments, f"--run_dir={tmp_path}/run")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: {told} needs the TensorFlow backend"), line
    assert not (tmp_path / "run" / "flags.txt").exists()


@pytest.mark.parametrize(("seed", "view"), [(0, 0), (3, 239), (-1, 7)])
def test_draws_in_numpy_are_those_of_tensorflow(seed, view):
    ids = np.array([0, 1, 49_999, 2**40], np.int64)
    theirs = counter_random.example_keys(seed, view, ids)
    ours = in_numpy.example_keys(seed, view, ids)
    np.testing.assert_array_equal(ours, theirs)
    for draw in (0, 1, 16):
        np.testing.assert_array_equal(
            in_numpy.uniform(ours, draw), counter_random.uniform(theirs, draw)
        )
        np.testing.assert_array_equal(
            in_numpy.integers(ours, draw, 9), counter_random.integers(theirs, draw, 9)
        )


@needs_jax
@pytest.mark.parametrize("names", ["crop,flip", "flip", "crop", ""])
def test_a_batch_is_cropped_and_mirrored_as_under_tensorflow(names, npz):
    from tf_mskd.on_jax.images import Images

    flags = [*ROW, f"--augment={names or 'none'}", "--seed=3", "--model=vgg8"]
    source = load_npz("digits", npz)
    images = Images(read_flags(flags), source)
    plan = images.plan(5)
    got, targets = images.batch(images.arrays(), plan, 2)
    ids = np.asarray(targets["index"], np.int64)
    want = make_augment(names)(source.train.images[ids], ids, 3, 5)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(targets["label"], source.train.labels[ids])
    assert plan["rows"].shape == (images.steps_per_epoch, 16) == (STEPS, 16)


def test_a_set_in_one_file_comes_back(npz, tmp_path):
    source, digits = load_npz("digits", npz), sources.load_source("digits", None, 32)
    for ours, theirs in ((source.train, digits.train), (source.test, digits.test)):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert source.class_names == digits.class_names
    assert sources.load_source("digits", str(npz)).image_shape == (32, 32, 1)
    with np.load(npz) as archive:
        arrays = dict(archive)
    broken = {
        "lacks test_images": {k: v for k, v in arrays.items() if k != "test_images"},
        "must be in": {**arrays, "train_labels": arrays["train_labels"] + 5},
        "must be uint8": {**arrays, "test_images": arrays["test_images"] / 255},
        "must be whole": {**arrays, "train_labels": arrays["train_labels"] / 2},
        "must be alike": {**arrays, "test_images": arrays["test_images"][:, :8]},
        "Cannot read": {**arrays, "class_names": np.array([{}], object)},
    }
    for text, content in broken.items():
        path = tmp_path / "broken.npz"
        np.savez(path, **content)
        with pytest.raises(UserError, match=text):
            load_npz("digits", path)
    pathlib.Path(tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(UserError, match="Cannot read"):
        load_npz("digits", tmp_path / "empty.npz")
