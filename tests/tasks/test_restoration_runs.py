"""Restoration in training: every method for it, and whole runs."""

import dataclasses

import numpy as np
import pytest

from tf_mskd import SGD, Distiller, UserError, create_model
from tf_mskd.data.low_light import load_low_light
from tf_mskd.methods.common import registry
from tf_mskd.methods.common.create import create_method
from tf_mskd.runs import evaluation, experiment
from tf_mskd.runs.comparison import read_runs
from tf_mskd.runs.config import Config
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.runs.report_tables import rows_of

pytestmark = pytest.mark.run

SIZE = (16, 16, 3)
MADE_FOR = registry.available_methods("restoration")
READ_VECTORS = ("cc", "pkt", "rkd")  # which no map has
NEED_HEADS = ("ft", "paraphraser")
READ_BLOCKS = ("ab",)  # maps before their ReLU
RUN = Config(
    dataset="low_light",
    image_size=32,
    task="restoration",
    augment="crop,flip",
    train_fraction=0.1,
    batch_size=16,
    model="unet",
    width=0.125,
    exits="2,3",
    optimizer="adam",
    lr=0.003,
    lr_schedule="cosine",
    epochs=1,
    tensorboard=False,
)


@pytest.fixture(scope="module")
def batch():
    train = load_low_light(side=32).train
    return tuple(v[:4, :16, :16] for v in (train.images, train.labels))


def distiller_of(name):
    method = create_method(name)
    exits = (2,) if name == "kd" else (1, 2)
    network = {"task": "restoration", "input_shape": SIZE, "exits": exits}
    student = create_model("unet", 3, width=0.1, aux_heads=method.aux_heads, **network)
    teacher = create_model("unet", 3, width=0.2, **network)
    teacher = teacher if method.needs_teacher else None
    made = Distiller(student, teacher, method, task="restoration")
    made.compile(SGD(0.01), run_eagerly=True, jit_compile=False)
    return made


@pytest.mark.parametrize("name", MADE_FOR)
def test_every_method_for_images_learns_or_says_what_it_lacks(name, batch):
    if name in READ_VECTORS + NEED_HEADS + READ_BLOCKS:
        with pytest.raises(UserError, match="reads \\w+_k|auxiliary head of unet"):
            distiller_of(name)
        return
    distiller = distiller_of(name)
    before = distiller.student.get_weights()
    logs = {n: float(v) for n, v in distiller.train_step(batch).items()}
    assert np.isfinite(list(logs.values())).all(), logs
    assert 0 < logs["ensemble_psnr"] < 40
    pairs = zip(before, distiller.student.get_weights(), strict=True)
    assert any((a != b).any() for a, b in pairs)


def test_a_run_names_its_figures(tmp_path, capsys):
    teacher = create_model(
        "unet", 3, width=0.2, task="restoration", input_shape=(32, 32, 3), exits=(2, 3)
    )
    teacher.save(tmp_path / "teacher.keras")
    config = dataclasses.replace(
        RUN,
        run_dir=str(tmp_path / "llkd"),
        method="llkd",
        teacher=str(tmp_path / "teacher.keras"),
    )
    result = experiment.run(config)
    assert (result.metric, result.unit) == ("psnr", "dB")
    assert set(result.test_more) == {"ssim"}
    assert "dB" in capsys.readouterr().out
    run = FinishedRun(config.run_dir)
    assert run.paths.examples.is_file()
    table = evaluation.evaluate_run(run)
    assert table == {"psnr": result.test, **result.test_more}
    lines = evaluation.lines_of(table, config.task)
    assert lines[0].split() == ["psnr", "ssim"]
    psnr, unit, ssim = lines[1].split()[1:]
    assert unit == "dB" and psnr == f"{result.test['exit_2']:.2f}"
    assert ssim == f"{result.test_more['ssim']['exit_2']:.4f}"
    _, row = rows_of(read_runs([config.run_dir]))
    assert row[1] == "psnr (dB)"
    for refused in (
        lambda: evaluation.calibrate_run(run),
        lambda: evaluation.export_run(run, tmp_path / "exported"),
    ):
        with pytest.raises(UserError, match="the task of .* is 'restoration'"):
            refused()
    student = run.student()
    free = create_model(
        "unet",
        3,
        width=0.125,
        exits=(2, 3),
        task="restoration",
        input_shape=(None, None, 3),
        aux_heads="gradient",
    )
    free.set_weights(student.get_weights())
    image = run.source.test.images[:1]
    answers = student(image), free(image)
    np.testing.assert_allclose(*(a["exit_3"] for a in answers), atol=1e-6)


def test_sets_without_clean_images_are_refused(tmp_path):
    config = dataclasses.replace(
        RUN, dataset="digits", image_size=0, run_dir=str(tmp_path / "run")
    )
    with pytest.raises(UserError, match="needs a clean image for every image"):
        experiment.run(config)
