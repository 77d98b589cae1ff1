"""What tests of whole runs share: settings, processes, contents of run folders."""

import dataclasses
import json
import multiprocessing
import os
import pathlib
import resource
import runpy
import shutil
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np
from tensorflow.python.eager.context import context_safe

from tf_mskd.runs.config import Config
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.runs.result import Result

ROOT = pathlib.Path(__file__).parents[1]
MINUTES = 60
PATIENCE = 10 * MINUTES  # for what must happen; no test measures how fast it does

SMALL = Config(
    dataset="digits",
    augment="crop",
    crop_padding=1,
    batch_size=32,
    validation_fraction=0.1,
    model="resnet10",
    width=0.125,
    exits="1,2",
    exit_head="linear",
    epochs=6,
    lr=0.05,
    lr_schedule="cosine",
    tensorboard=False,
)
TINY = dataclasses.replace(
    SMALL, method="ce", width=0.0625, train_fraction=0.5, epochs=3, dropout=0.1
)
OWN = Config(  # a network of one's own, which traces in a moment
    dataset="digits",
    augment="none",
    batch_size=32,
    validation_fraction=0.1,
    train_fraction=0.5,
    model="tests.own_networks:small",
    epochs=1,
    lr_schedule="cosine",
    tensorboard=False,
)
STEPS = 20  # an epoch of these two
PLAIN = Result(  # numbers made up
    model="resnet10",
    teacher=None,
    method="ce",
    phases="joint",
    ensemble="probabilities",
    seed=0,
    epochs=3,
    train_examples=100,
    params=5,
    macs={"exit_1": 40, "exit_10": 60, "ensemble": 100},
    seconds=1.5,
    test={"exit_1": 0.5, "exit_10": 0.75, "ensemble": 1, "ensemble_logits": 0.0},
)


# ---- processes


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What building a network asks of a data set."""

    num_classes: int = 10
    image_shape: tuple = (8, 8, 1)
    mean: tuple | None = None
    std: tuple | None = None


class Done(NamedTuple):
    """A finished command: exit code (minus the number of a signal), and its output."""

    returncode: int
    stdout: str
    stderr: str


class Command:
    """A command of the package in a process of its own: `python -m MODULE ARGUMENTS`.

    It is forked from a server that has TensorFlow imported and nothing computed, so it
    starts at once; signals, exit codes and output are those of any process.

    Args:
        module: str, name of the module.
        *arguments: what follows on the command line.
        environment: dict of more variables, or None.
        max_file_size: int, bytes beyond which the kernel refuses to write; or None.
    """

    def __init__(self, module, *arguments, environment=None, max_file_size=None):
        self._logs = pathlib.Path(tempfile.mkdtemp())
        self._process = _server().Process(
            target=_run_module,
            args=(
                module,
                [str(argument) for argument in arguments],
                {**os.environ, **(environment or {})},
                self._paths(),
                max_file_size,
            ),
            daemon=True,
        )
        self._process.start()
        self.pid = self._process.pid

    def _paths(self):
        return [self._logs / "stdout", self._logs / "stderr"]

    def send_signal(self, number):
        os.kill(self.pid, number)

    def finish(self):
        """Waits for the end of the process; returns `Done`."""
        self._process.join(PATIENCE)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
        stdout, stderr = (path.read_text() for path in self._paths())
        shutil.rmtree(self._logs)
        assert code is not None, f"no end of {self.pid}: {(stdout + stderr)[-2000:]}"
        return Done(code, stdout, stderr)


def _server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tf_mskd.runs.experiment", "tests.support"])
    return context


def _run_module(module, arguments, environment, logs, max_file_size):
    computed = "an import computes: what TensorFlow has started is not forked with it"
    assert context_safe() is None, computed
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(logs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    if max_file_size:
        limits = (max_file_size, resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def start(folder, config=TINY, at=(), **options):
    """Starts a run with frequent checkpoints in a process of its own.

    Args:
        folder: path of the run folder; the flagfile lies beside it.
        config: `Config`.
        at: arguments of `tests.signal_at`, or none.
        **options: of `Command`.
    """
    often = {"checkpoint_steps": 3, "steps_per_call": 3, "run_dir": str(folder)}
    flagfile = folder.with_suffix(".flags")
    flagfile.write_text(to_flagfile(dataclasses.replace(config, **often)))
    module = ["tests.signal_at", *at] if at else []
    return Command(*module, "tf_mskd.train", f"--flagfile={flagfile}", **options)


def wait_for(condition):
    """Waits until the condition, a function without arguments, is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# ---- run folders


def run_of_two_exits(folder):
    """The folder of a run by `mskd`, done in it; its teacher beside it is untrained."""
    from tests.own_networks import small
    from tf_mskd.models.plain import as_teacher
    from tf_mskd.models.saving import save_model
    from tf_mskd.runs import experiment

    (folder / "teacher").mkdir()
    teacher = as_teacher(small(10, (8, 8, 1)))
    save_model(teacher, folder / "teacher" / "student.keras")
    settings = {"teacher": str(folder / "teacher"), "run_dir": str(folder / "run")}
    experiment.run(dataclasses.replace(OWN, method="mskd", taps="one", **settings))
    return folder / "run"


def history_of(path):
    """metrics.jsonl without the wall times."""
    lines = [json.loads(x) for x in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds")
    return lines


def weights_of(path):
    """All weights of the run's student; a loaded dropout draws a new seed."""
    from tf_mskd.models.saving import load_model

    return [v.numpy() for v in load_model(path).weights]


def assert_same_run(one, two):
    """Both runs have the same epochs, the same results and the same weights."""
    assert history_of(one) == history_of(two)
    assert_same_result(one, two)


def assert_same_result(one, two):
    """Both runs have the same results and the same weights."""
    results = [json.loads((f / "result.json").read_text()) for f in (one, two)]
    for result in results:
        result.pop("seconds")
    assert results[0] == results[1]
    for a, b in zip(weights_of(one), weights_of(two), strict=True):
        np.testing.assert_array_equal(a, b)


def temporary_files(folder):
    return [path for path in folder.rglob(".*") if path.is_file()]


# ---- data


def store(
    data_dir,
    set_name,
    rows,
    image,
    label=None,
    labels=None,
    mask=None,
    shards=1,
    file_format=None,
    **more,
):
    """Prepares a TFDS set; `rows` maps split to (images, labels).

    With `labels`, a feature of several classes, or `mask`, {name: feature of images},
    there is no "label".
    """
    import tensorflow_datasets as tfds

    label = label or tfds.features.ClassLabel(names=[f"d{k}" for k in range(10)])
    target = mask or ({"labels": labels} if labels else {"label": label})

    class Stored(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = set_name
        VERSION = tfds.core.Version("1.0.0")
        code_path = None  # as in tiny_imagenet.py

        def _info(self):
            features = {"image": image, **target, **more}
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(*rows[split]) for split in rows}

        def _generate_examples(self, images, labels):
            (name,) = target
            for key, (pixels, value) in enumerate(zip(images, labels, strict=True)):
                value = value if mask else np.asarray(value).tolist()
                row = {"image": pixels, name: value}
                yield key, {**row, **dict.fromkeys(more, "t")}

    config = tfds.download.DownloadConfig(num_shards=shards)
    builder = Stored(data_dir=data_dir, file_format=file_format)
    builder.download_and_prepare(download_config=config)
