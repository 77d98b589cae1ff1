"""Restoration: known answers of images, the task, what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import UserError, create_model
from tf_mskd.tasks import create_task
from tf_mskd.tasks.image_quality import (
    gradient_map,
    mean_absolute_error,
    psnr,
    ssim,
)
from tf_mskd.tasks.meter import Meter

SIZE = (2, 16, 16, 3)
ANSWER = (0.5 + 0.4 * reference.fill(0.3, SIZE)).astype("float32")
CLEAN = (0.5 + 0.4 * reference.fill(0.35, SIZE)).astype("float32")
PICTURES = np.random.default_rng(0).integers(0, 256, SIZE, "uint8")


def close(got, expected, rtol=2e-5):
    np.testing.assert_allclose(np.asarray(got), expected, rtol)


def test_known_answers_of_images():
    close(np.mean(mean_absolute_error(ANSWER, CLEAN)), 0.01273666, 1e-4)
    close(psnr(ANSWER, CLEAN), [36.98747512, 36.98913844])
    close(ssim(ANSWER, CLEAN), [0.99875725, 0.99875725], 1e-5)
    close(np.mean(gradient_map(CLEAN)), 0.31071877)
    gap = mean_absolute_error(gradient_map(ANSWER), gradient_map(CLEAN))
    close(np.mean(gap), 0.01282031)


def test_figures_are_those_of_tensorflow():
    random = np.random.default_rng(1)
    a, b = (random.random((3, 20, 13, 3), "float32") for _ in range(2))
    close(ssim(a, b), tf.image.ssim(a, b, 1.0), 1e-4)
    close(psnr(a, b), tf.image.psnr(a, b, 1.0))
    close(psnr(a, a), 100.0)
    close(ssim(a, a), 1.0)


def test_whole_numbers_and_floats_are_the_same_labels():
    task, shape = create_task("restoration"), SIZE[1:]
    read = task.read_label(PICTURES, shape)
    close(read, PICTURES / 255.0)
    np.testing.assert_array_equal(task.read_label(read, shape), read)
    for function in (task.label_loss, task.quality):
        close(function(PICTURES, ANSWER), function(read, ANSWER))


def test_the_meter_names_both_figures():
    task = create_task("restoration")
    meter = Meter(task)
    for rows in (slice(0, 1), slice(1, 2)):
        outputs = {"exit_1": ANSWER[rows], "exit_2": CLEAN[rows]}
        meter.update(outputs, CLEAN[rows])
    found = meter.results()
    assert list(found) == ["psnr", "ssim"]
    close(found["psnr"]["exit_1"], np.mean(psnr(ANSWER, CLEAN)))
    close(found["ssim"]["ensemble"], np.mean(ssim((ANSWER + CLEAN) / 2, CLEAN)))
    assert (task.unit_of("psnr"), task.unit_of("ssim")) == ("dB", "")


def test_panels_end_in_the_truth():
    task = create_task("restoration")
    label = np.full((2, 2, 3), 128, "uint8")
    panels = task.panels(label, {"exit_1": np.full((2, 2, 3), 0.25)})
    assert list(panels) == ["exit_1", "truth"]
    assert (panels["exit_1"] == 64).all() and (panels["truth"] == label).all()


@pytest.mark.parametrize(
    "label, message",
    [
        (
            PICTURES[..., 0],
            r"clean images \[B, 16, 16, 3\], .* got uint8 \[2, 16, 16\]",
        ),
        (PICTURES[:, :8], r"got uint8 \[2, 8, 16, 3\]"),
        (PICTURES > 3, r"got bool \[2, 16, 16, 3\]"),
        ([[1, 2], [3]], "got list"),
    ],
)
def test_labels_that_are_no_images_are_refused(label, message):
    with pytest.raises(UserError, match=message):
        create_task("restoration").read_label(label, SIZE[1:])


def test_mistakes_are_told_in_a_line():
    task, shape = create_task("restoration"), SIZE[1:]
    task.check_label(PICTURES, shape)
    with pytest.raises(UserError, match=r"must be floats in \[0, 1\], got 255"):
        task.check_label(np.full(SIZE, 255.0), shape)
    with pytest.raises(UserError, match=r"must be whole numbers 0\.\.255, got -1"):
        task.check_label(np.full(SIZE, -1), shape)
    with pytest.raises(UserError, match="needs a clean image for every image"):
        task.labels_of(np.arange(3), 3)
    with pytest.raises(UserError, match=r"needs exits \[B, H, W, C\], those of 'net'"):
        task.check_outputs("net", (10,))
    with pytest.raises(
        UserError, match="windows of 11x11 pixels, the images have 8x16"
    ):
        ssim(CLEAN[:, :8], ANSWER[:, :8])


def test_other_networks_restore_too():
    student = create_model(
        "resnet10",
        3,
        task="restoration",
        input_shape=(16, 16, 3),
        exits=(1,),
        exit_head="linear",
        width=1 / 16,
    )
    image = np.asarray(student(PICTURES)["exit_1"])
    assert image.shape == SIZE and 0 <= image.min() and image.max() <= 1
