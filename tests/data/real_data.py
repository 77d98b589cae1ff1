"""Where real data sets lie, for tests that use them and skip where they are absent."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(
    os.environ.get("TF_MSKD_DATA_DIR")
    or pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
)


def cifar100_dir():
    """The TFDS directory that holds CIFAR-100, or skips the test."""
    return _path("tfds", "tfds/cifar100")


def tiny_imagenet_zip():
    """The Tiny ImageNet archive (a part of it will do), or skips the test."""
    name = "tiny-imagenet-200-subset.zip"
    return _path(name, name)


def _path(name, probe):
    if not (ROOT / probe).exists():
        pytest.skip(f"no {probe} in {ROOT}; set TF_MSKD_DATA_DIR to run this test")
    return ROOT / name
