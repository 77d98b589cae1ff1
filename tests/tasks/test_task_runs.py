"""Tasks beside classification in training: every method for them, and whole runs."""

import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.method_support import (
    ARGUMENTS,
    IMAGES,
    batch_for,
    fitting,
)
from tests.support import SMALL, store
from tf_mskd import SGD, Distiller, UserError, create_model
from tf_mskd.data.sources import load_source
from tf_mskd.methods.common import registry
from tf_mskd.methods.common.create import create_method
from tf_mskd.runs import evaluation, experiment
from tf_mskd.runs.comparison import read_runs
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.runs.report_tables import rows_of
from tf_mskd.utils.choices import AUX_HEADS

pytestmark = pytest.mark.run

SETTINGS = {"input_shape": (8, 8, 1), "exit_head": "linear", "width": 1 / 8}
ANY = registry.available_methods("multi_label")  # which are those for any task


def labels_for(task, labels):
    return (labels % 2) if task == "binary" else np.eye(10, dtype="float32")[labels]


@pytest.mark.parametrize("task", ["multi_label", "binary"])
@pytest.mark.parametrize("name", ANY)
def test_a_method_for_any_task_learns_this_one(name, task, digits):
    classes = 2 if task == "binary" else 10

    def make(exits):
        method = create_method(name, **ARGUMENTS.get(name, {}))
        numbers = (2,) if exits == "last" else (1, 2)
        network = {"exits": numbers, "task": task, **SETTINGS}
        heads = method.aux_heads
        student = create_model("resnet10", classes, aux_heads=heads, **network)
        teacher = create_model("resnet10", classes, aux_heads=AUX_HEADS, **network)
        teacher = teacher if method.needs_teacher else None
        return Distiller(student, teacher, method, task=task)

    distiller = fitting(name, make, ("last", "all"))
    distiller.compile(SGD(0.01), run_eagerly=True, jit_compile=False)
    images, labels = digits[0][:IMAGES], labels_for(task, digits[1][:IMAGES])
    before = [w.copy() for w in distiller.student.get_weights()]
    logs = distiller.train_step(batch_for(distiller.method, images, labels))
    assert all(np.isfinite(float(value)) for value in logs.values()), logs
    figure = f"ensemble_{distiller.task.step_metric}"
    if name != "paraphraser":  # which trains no exit
        assert 0 <= float(logs[figure]) <= 1
    after = distiller.student.get_weights()
    assert any((a != b).any() for a, b in zip(after, before, strict=True))


def test_a_run_of_several_labels(tmp_path, capsys):
    """Every digit as ten questions: figures, best student, report, evaluation."""
    several = dataclasses.replace(SMALL, task="multi_label", lr=0.5)
    teacher = dataclasses.replace(several, run_dir=str(tmp_path / "teacher"))
    assert experiment.run(teacher).test["ensemble"] > 0.5  # chance is 0.1
    config = dataclasses.replace(
        several,
        run_dir=str(tmp_path / "oto"),
        method="oto,at",
        teacher=teacher.run_dir,
        teacher_cache=str(tmp_path / "cache"),
        epochs=4,
    )
    with pytest.raises(
        UserError, match="reads feature_1 of the teacher, a feature map"
    ):
        experiment.run(config)
    config = dataclasses.replace(config, method="oto", run_dir=str(tmp_path / "mskd"))
    result = experiment.run(config)
    assert (result.metric, result.step_metric) == ("map", "binary_accuracy")
    assert set(result.test_more) == {"binary_accuracy"}
    assert result.fitted_weights is None and result.test_best
    assert "teacher resnet10, on the test split: exit_1" in capsys.readouterr().out
    other = dataclasses.replace(config, task="binary", run_dir=str(tmp_path / "other"))
    with pytest.raises(UserError, match="answers the task 'multi_label', the s"):
        experiment.run(other)
    run = FinishedRun(config.run_dir)
    table = evaluation.evaluate_run(run)
    assert table == {"map": result.test, **result.test_more}
    lines = evaluation.lines_of(table, config.task)
    assert lines[0].split() == ["map", "binary_accuracy"] and "%" in lines[1]
    header, row = rows_of(read_runs([config.run_dir]))
    assert (header[1], row[1]) == ("figure", "map (%)")
    assert row[2] == f"{100 * result.test['exit_1']:.2f}"
    for refused in (
        lambda: evaluation.calibrate_run(run),
        lambda: evaluation.evaluate_early_exit(run),
        lambda: evaluation.export_run(run, tmp_path / "exported"),
    ):
        with pytest.raises(UserError, match="answer with one class, the task of .* is"):
            refused()
    top = dataclasses.replace(config, cache_top_k=3, run_dir=str(tmp_path / "top"))
    with pytest.raises(UserError, match="--cache_top_k ranks classes, task 'multi_la"):
        experiment.run(top)


def test_a_run_of_one_logit(tmp_path):
    digits = load_source("digits")
    for name, split in (("train", digits.train), ("test", digits.test)):
        for digit in (0, 1):
            folder = tmp_path / "data" / name / str(digit)
            folder.mkdir(parents=True)
            for k, image in enumerate(split.images[split.labels == digit][:100]):
                Image.fromarray(image[..., 0]).save(folder / f"{k}.png")
    config = dataclasses.replace(
        SMALL,
        dataset="folder",
        data_dir=str(tmp_path / "data"),
        task="binary",
        run_dir=str(tmp_path / "run"),
    )
    result = experiment.run(config)
    assert result.test["ensemble"] > 0.9 and result.test_more["auc"]["ensemble"] > 0.9
    student = FinishedRun(config.run_dir).student()
    assert student.output["exit_1"].shape == (None, 1)


def test_a_set_with_several_classes_an_image(tmp_path):
    images = np.zeros((6, 4, 4, 3), np.uint8)
    labels = [[0], [1, 2], [], [2], [0, 1, 2], [1]]
    several = tfds.features.Sequence(tfds.features.ClassLabel(names=["a", "b", "c"]))
    image = tfds.features.Image(shape=(4, 4, 3))
    rows = images, labels
    store(tmp_path, "several", {"train": rows, "test": rows}, image, labels=several)
    split = load_source("several", tmp_path).train
    expected = [[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 1], [1, 1, 1], [0, 1, 0]]
    assert sorted(split.labels.tolist()) == sorted(expected)
    assert not split.strata.any()
    config = dataclasses.replace(
        SMALL, dataset="several", data_dir=str(tmp_path), run_dir=str(tmp_path / "run")
    )
    with pytest.raises(UserError, match="the data set has several: .*'multi_label'"):
        experiment.run(config)
