"""Augmentation schemes: their flagfiles differ in one thing, and the report on runs."""

import dataclasses
import pathlib

import numpy as np
import pytest

from tests.reference import softmax
from tf_mskd.models.saving import load_model
from tf_mskd.runs import experiment
from tf_mskd.runs.config import Config
from tf_mskd.runs.data import Data
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.runs.flags import read_flagfile
from tf_mskd.utils.errors import UserError
from tools import augmentation_report as report

FOLDER = pathlib.Path("configs/augmentation")
SMALL = {"epochs": 1, "train_fraction": 0.1, "width": 0.125, "tensorboard": False}


def test_the_spread_is_the_mean_over_classes_of_standard_deviations():
    means = np.array([[0.2, 0.5, 0.3], [0.4, 0.5, 0.1], [0.6, 0.2, 0.2]])
    deviations = [means[:, k].std(ddof=1) for k in range(3)]
    np.testing.assert_allclose(report.spread(means), np.mean(deviations))
    assert report.spread(np.tile(means[:1], (4, 1))) == 0


@pytest.mark.parametrize(
    ("name", "base", "changes"),
    [
        ("fraction_025", "fraction_100", {"augment_fraction"}),
        ("fraction_000", "fraction_100", {"augment_fraction"}),
        ("few_25", "fraction_100", {"train_fraction"}),
        ("scheme_rotate", "fraction_100", {"second_augment"}),
        ("teacher_jda", "fraction_100", {"teacher_flagfile"}),
        ("crd_jda", "crd", {"augment"}),
        ("sskd_jda", "sskd", {"augment"}),
        ("hsakd_jda", "hsakd", {"augment"}),
    ],
)
def test_a_flagfile_changes_what_it_says(name, base, changes):
    one, other = (read_flagfile(FOLDER / f"{n}.flags") for n in (name, base))
    names = {field.name for field in dataclasses.fields(Config)}
    assert {n for n in names if getattr(one, n) != getattr(other, n)} == changes


@pytest.mark.run
def test_the_report_reads_runs_and_asks_their_teacher(tmp_path):
    common = {**SMALL, "model": "resnet10", "exits": "last"}
    experiment.run(Config(run_dir=str(tmp_path / "teacher"), method="ce", **common))
    with pytest.raises(UserError, match="teacher has no trained teacher: leave it out"):
        report.line_of(tmp_path / "teacher", 2)
    settings = {"augment": "flip", "second_augment": "rotate", "augment_fraction": 0.5}
    config = Config(
        run_dir=str(tmp_path / "ccd"),
        method="ccd",
        teacher=str(tmp_path / "teacher"),
        **settings,
        **common,
    )
    result = experiment.run(config)
    _, *shown, accuracy, spread = report.line_of(tmp_path / "ccd", 2)
    assert shown == ["ccd", "flip", "rotate", "0.5", "0.1"]
    assert accuracy == f"{100 * result.test['exit_4']:.2f}"

    def check(run_dir, rows_of):
        run = FinishedRun(run_dir)
        method = experiment.build.build_method(run.config, len(run.source.train.labels))
        means, teacher = [], load_model(tmp_path / "teacher")
        for images, targets in Data(run.config, method).train_stream(0).take(2):
            logits = teacher.predict(rows_of(images, targets), verbose=0)["exit_4"]
            means.append(softmax(logits).mean(0))
        got = report.teacher_means(run, 2)
        np.testing.assert_allclose(got, means, atol=1e-5)
        return got

    got = check(
        tmp_path / "ccd", lambda x, targets: np.concatenate([x, targets["second_view"]])
    )
    assert spread == f"{report.spread(got):.5f}"
    # a method that reads no exit of the teacher
    own = {"run_dir": str(tmp_path / "crd"), "method": "crd", "second_augment": ""}
    own |= {"method_args": "num_negatives=2", "augment_fraction": 1.0}
    experiment.run(dataclasses.replace(config, **own))
    check(tmp_path / "crd", lambda x, targets: x)
