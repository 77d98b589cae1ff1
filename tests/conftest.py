"""Fixtures for all tests: quiet TensorFlow, seeds, tiny networks, real digits."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def seeds():
    """Every test starts from one seed."""
    import keras

    keras.utils.set_random_seed(0)


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

    def make(exits=(1, 2), width=1 / 16, classes=10, shape=(8, 8, 1), **arguments):
        return create_model(
            "resnet10",
            classes,
            exits=exits,
            width=width,
            input_shape=shape,
            exit_head="linear",
            **arguments,
        )

    return make
