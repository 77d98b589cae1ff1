"""From the flags of augmentation to the images of a run, and to a cache's identity."""

import dataclasses

import numpy as np
import pytest

from tests.support import OWN
from tf_mskd.data.augment import make_augment
from tf_mskd.data.augment_options import Options
from tf_mskd.runs.config import Config
from tf_mskd.runs.data import Data

CASES = [  # settings beside --augment, as options
    ("randaugment", {"randaugment_operations": 3, "randaugment_magnitude": 4.0}),
    ("erase", {"erase_fill": "black"}),
    ("resized_crop", {"crop_scale": (0.08, 1.0), "crop_ratio": (0.5, 2.0)}),
    ("trivialaugment", {}),
]


def test_flags_and_options_have_the_same_defaults():
    config = Config()
    for field in dataclasses.fields(Options):
        assert getattr(config, field.name) == field.default, field.name


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_run_augments_as_its_flags_say(name, options):
    data = Data(dataclasses.replace(OWN, augment=("flip", name), seed=2, **options))
    images, targets = next(iter(data.train_stream(0)))
    index = targets["index"].numpy()
    augment = make_augment(f"flip,{name}", **options)
    expected = augment(data.source.train.images[index], index, 2, 0)
    np.testing.assert_array_equal(images, expected)
    assert all(f"{key} {value}" in data.augmentation for key, value in options.items())


def test_what_a_cache_keeps_of_former_augmentations_stays():
    usual = "crop_padding 4, rotation_degrees 20.0, cutout_size 16"
    for names in (("none",), ("crop", "flip"), ("resized_crop", "jitter")):
        text = Data(dataclasses.replace(OWN, augment=names)).augmentation
        assert text == f"{','.join(names)}; {usual}"
