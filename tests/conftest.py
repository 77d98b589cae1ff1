"""For all tests: their three sets, quiet TensorFlow, seeds, networks, real digits.

Three sets of tests, by two markers: *fast* has neither `run` nor `slow`, *all* has not
`slow`, *slow* has. An unmarked test that starts a process or a whole run fails.
"""

import functools
import multiprocessing.process
import os
import platform
import random
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# two workers share the machine: each with one thread an operation, and its children
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np
import pytest

platform.processor()  # asks a process, once: TensorFlow's import wants it, in any test


def pytest_collectstart(collector):
    """Networks that a file of tests makes as it is read start from one seed."""
    random.seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Files with whole runs first, each file a group that one worker takes."""
    long = {item.path for item in items if not is_fast(item)}
    items.sort(key=lambda item: item.path not in long)
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Keeps the fast set honest: its tests and fixtures start no process, no run."""
    with pytest.MonkeyPatch.context() as patch:
        if is_fast(item):
            patch.setattr(subprocess.Popen, "__init__", refuse)
            patch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
            if experiment := sys.modules.get("tf_mskd.runs.experiment"):
                patch.setattr(experiment, "run", refuse)
        return (yield)


def is_fast(item):
    return not any(item.get_closest_marker(name) for name in ("run", "slow"))


def refuse(*args, **kwargs):
    """Stands for what only a marked test may call."""
    pytest.fail("starts a process or a whole run: mark the test `run` or `slow`")


@pytest.fixture(autouse=True)
def seeds(request):
    """Every test starts from one seed.

    Initial weights are drawn from Python's generator. TensorFlow's seed, which clears
    every prepared operation, matters to the files that call `fit`, for its order.
    """
    random.seed(0)
    np.random.seed(0)
    if "keras" in sys.modules and calls_fit(request.path):
        sys.modules["keras"].utils.set_random_seed(0)


@functools.cache
def calls_fit(path):
    return ".fit(" in path.read_text()


@pytest.fixture(scope="session")
def digits():
    """Real digits: uint8 [1797, 8, 8, 1] in 0..255, and int32 [1797] in 0..9."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]
    return images, data.target.astype(np.int32)


@pytest.fixture
def tiny():
    """Makes networks of a few thousand weights for the digits."""
    from tf_mskd import create_model

    def make(exits=(1, 2), width=1 / 16, classes=10, shape=(8, 8, 1), **settings):
        return create_model(
            "resnet10",
            classes,
            exits=exits,
            width=width,
            input_shape=shape,
            **{"exit_head": "linear", **settings},
        )

    return make
