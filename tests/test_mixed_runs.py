"""Runs on mixed images: which ones there are, and what their steps learn from."""

import dataclasses

import numpy as np
import pytest

from tests.support import OWN
from tf_mskd.data.mixing import Mixing
from tf_mskd.runs import build, experiment
from tf_mskd.runs.config import Config
from tf_mskd.runs.data import Data
from tf_mskd.runs.mixing import build_mixing
from tf_mskd.utils.errors import UserError

REFUSED = [  # settings, what is told
    ({"method": "dkd"}, "makes soft labels, --method=dkd needs class numbers"),
    ({"method": "kd,crd"}, "makes soft labels, --method=kd,crd needs class numbers"),
    ({"method": "purf"}, "mixes images, --method=purf changes them itself"),
    ({"method": "dats"}, "mixes images, --method=dats changes them itself"),
    ({"task": "multi_label"}, "mixes classes, the task 'multi_label' has labels of"),
    ({"task": "segmentation"}, "mixes classes, the task 'segmentation' has labels of"),
]


@pytest.mark.parametrize(("settings", "told"), REFUSED)
@pytest.mark.parametrize(("name", "value"), [("mixup", 0.2), ("cutmix", 1.0)])
def test_what_cannot_learn_from_mixed_images_is_refused(settings, told, name, value):
    config = Config(**{name: value}, **settings)
    method = build.build_method(config, 8)
    with pytest.raises(UserError, match=f"--{name}={value:g} {told}.*--{name}=0"):
        build_mixing(config, method, 10)


def test_a_method_that_reads_single_images_is_refused():
    method = build.build_method(Config(method="kd"))
    method.target_keys = ("label", "index")
    with pytest.raises(UserError, match="--method=kd reads index of each alone"):
        build_mixing(Config(method="kd", mixup=0.2), method, 10)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_cache_of_unmixed_images_is_refused(name):
    told = f"--{name}=0.5 mixes images anew in each step, --teacher_cache"
    with pytest.raises(UserError, match=told):
        Config(teacher_cache="cache", **{name: 0.5})


def test_no_flag_is_no_mixing_and_two_are_both():
    method = build.build_method(Config(method="mskd"))
    assert build_mixing(Config(method="mskd"), method, 10) is None
    both = build_mixing(Config(method="mskd", mixup=0.2, cutmix=1.0), method, 10)
    assert (both.mixup, both.cutmix, both.num_classes) == (0.2, 1.0, 10)


def test_a_run_of_mixed_images_reads_them():
    config = dataclasses.replace(OWN, mixup=0.4, seed=2)
    data = Data(config, build.build_method(config))
    plain = Data(dataclasses.replace(OWN, seed=2)).train_stream(7)
    mix = Mixing(0.4, num_classes=10)
    (images, targets), (unmixed, labels) = (
        next(iter(stream)) for stream in (data.train_stream(7), plain)
    )
    expected = mix(unmixed, labels["label"], 2, 7)
    np.testing.assert_array_equal(images, expected[0])
    np.testing.assert_array_equal(targets["label"], expected[1])
    held_out = next(iter(data.validation_stream()))[1]
    assert held_out["label"].dtype == "int32"  # not mixed


@pytest.mark.run
@pytest.mark.parametrize("method", ["ce", "dml"])
def test_a_run_learns_from_mixed_images(tmp_path, method):
    """Its accuracy in training is that of the class with the larger part."""
    settings = {"mixup": 0.2, "cutmix": 1.0, "epochs": 3, "method": method}
    if method == "dml":
        flagfile = tmp_path / "peer.flags"
        flagfile.write_text("--dataset=digits\n--model=tests.own_networks:small\n")
        settings |= {"teacher_flagfile": str(flagfile), "untrained_teacher": True}
    config = dataclasses.replace(OWN, run_dir=str(tmp_path / "run"), **settings)
    result = experiment.run(config)
    assert min(result.test.values()) > 0.3
