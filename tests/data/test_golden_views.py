"""Views of former versions: no augmentation moves in silence.

The file holds the views of four images under seed 3 and view 5, by names of --augment.
"""

import pathlib

import numpy as np
import pytest
from sklearn import datasets

from tf_mskd.data.augment import make_augment

VIEWS = np.load(pathlib.Path(__file__).parents[1] / "golden" / "augmentations.npz")
IDS = np.array([0, 7, 40_000, 1_200_000], np.int64)
PLACES = ((0, 0), (150, 200), (200, 400), (150, 500))
BLENDING = ("rotate", "resized_crop", "jitter", "blur")  # in floats


@pytest.mark.parametrize("names", sorted(VIEWS))
def test_a_view_is_the_stored_one(names):
    photo = datasets.load_sample_images().images[1]
    images = [photo[t : t + 96 : 6, u : u + 120 : 6] for t, u in PLACES]
    got = make_augment(names)(np.stack(images), IDS, 3, 5).numpy().astype(int)
    gap = np.abs(got - VIEWS[names])
    assert gap.max() <= (names in BLENDING)  # another machine may round otherwise
    assert np.mean(gap > 0) < 1e-2
