"""What several tests of the data share."""

import numpy as np
import pytest
from sklearn import datasets

from tf_mskd.data.sources import load_source, split_ids


@pytest.fixture(scope="session")
def digits():
    return load_source("digits")


@pytest.fixture(scope="session")
def ids(digits):
    """A tenth of the digits to train with."""
    return split_ids(digits.train.labels, validation_fraction=0.9)[0]


@pytest.fixture(scope="session")
def photographs():
    """Tiles of two real photographs, uint8 [64, 32, 40, 3]."""
    tiles = []
    for photo in datasets.load_sample_images().images:
        for top, left in ((y, x) for y in range(0, 320, 80) for x in range(0, 480, 60)):
            tiles.append(photo[top : top + 96 : 3, left : left + 120 : 3])
    return np.stack(tiles)
