"""The use cases run on a stand-in: pictures and digits in the layout of the pages."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from tf_mskd.runs import experiment
from tf_mskd.runs.evaluation import evaluate_run
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.runs.flags import read_flagfile, to_flagfile

SMALL = {"epochs": 1, "batch_size": 4, "tensorboard": False}


def write(root, pictures, suffix):
    """Class folders: two of each kind to train on, one to test."""
    for kind, found in pictures.items():
        for number, pixels in enumerate(found):
            folder = root / ("test" if number == 2 else "train") / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}{suffix}")


def scans():
    """Digits, as scans of them, and photographs, 96x96."""
    digits = [
        np.uint8(255 - 15 * d).repeat(12, 0).repeat(12, 1) for d in digit_images()
    ]
    photographs = [p[100:196, 96 * k : 96 * k + 96] for p in photos() for k in (1, 3)]
    return {"receipt": digits, "other": photographs[:3]}


def digit_images():
    return load_digits().images[:3]


def photos():
    return load_sample_images().images  # two of 427x640


def shortened(name, folder, data, teacher, **changes):
    """The configuration of a use case at the size of the stand-in."""
    path = f"configs/use_cases/{name}"
    small = {**SMALL, "data_dir": str(data), **changes}
    of_teacher = {**small, **teacher}
    config = dataclasses.replace(read_flagfile(f"{path}_teacher.flags"), **of_teacher)
    flagfile = folder / f"{name}_teacher.flags"
    flagfile.write_text(to_flagfile(config))
    small |= {"teacher_flagfile": str(flagfile), "run_dir": str(folder / "student")}
    return dataclasses.replace(read_flagfile(f"{path}.flags"), width=0.125, **small)


@pytest.mark.run
def test_receipts(tmp_path):
    write(tmp_path / "data", scans(), ".png")
    teacher = {"model": "keras:MobileNetV2?alpha=0.35"}
    config = shortened("receipts", tmp_path, tmp_path / "data", teacher, image_size=32)
    result = experiment.run(config)
    assert result.train_examples == 4 and result.method == "kd"
    assert (tmp_path / "receipts_teacher" / "student.keras").exists()


@pytest.mark.run
def test_histopathology(tmp_path):
    tissue = {"benign": photos()[0], "normal": photos()[1]}
    pictures = {k: [p, p[:, ::-1], p[::-1]] for k, p in tissue.items()}
    write(tmp_path / "data", pictures, ".tif")
    teacher = {"model": "resnet10", "exits": "last", "width": 0.125}
    sizes = {"patch_size": 200, "image_size": 32}
    config = shortened("histopathology", tmp_path, tmp_path / "data", teacher, **sizes)
    result = experiment.run(config)
    assert result.train_examples == 4 * 6  # of 427x640: two lines of three patches
    [(figure, table)] = result.test_more.items()
    assert figure == "picture_accuracy" and table["exit_4"] in (0, 0.5, 1)
    kept = json.loads((tmp_path / "student" / "result.json").read_text())["test_more"]
    measured = evaluate_run(FinishedRun(tmp_path / "student"))
    assert measured["picture_accuracy"] == kept["picture_accuracy"]
