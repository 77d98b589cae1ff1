"""Label maps: known answers, void pixels, the confusion matrix, what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import UserError, add_exits
from tf_mskd.early_exit.maps import maps_rows, measure_maps
from tf_mskd.tasks import create_task, heads
from tf_mskd.tasks.label_maps import (
    VOID,
    pixel_accuracy,
    pixel_cross_entropy,
    pixel_kl,
)
from tf_mskd.tasks.meter import Meter

SIZE = (2, 4, 4, 3)
STUDENT, TEACHER = 2 * reference.fill(0.3, SIZE), 3 * reference.fill(0.9, SIZE)
IMAGE, ROW, COLUMN = np.indices(SIZE[:3])
LABELS = (ROW + 2 * COLUMN + IMAGE) % 3
LABELS[0, 0, 0] = VOID


def close(got, expected, rtol=2e-5):
    np.testing.assert_allclose(np.asarray(got), expected, rtol)


def test_known_answers_of_pixels():
    ce = pixel_cross_entropy(LABELS, STUDENT)
    close(ce, [1.51192795, 1.38664304])
    close(np.mean(ce), 1.44928550)
    close(np.mean(pixel_kl(TEACHER, STUDENT, 1.0)), 0.12368938)
    close(np.mean(pixel_kl(TEACHER, STUDENT, 4.0)), 0.20839940)


def measured(outputs, labels):
    meter = Meter(create_task("segmentation"))
    meter.update({n: v.astype("float32") for n, v in outputs.items()}, labels)
    return meter.results()


def test_known_answers_of_the_confusion_matrix():
    figures = create_task("segmentation").figures()
    for rows in (slice(0, 1), slice(1, 2)):
        figures.update(LABELS[rows], STUDENT[rows].astype("float32"))
    assert figures.matrix.tolist() == [[2, 0, 8], [6, 0, 5], [3, 0, 7]]
    other = 2 * reference.fill(1.1, SIZE)
    found = measured({"exit_1": STUDENT, "exit_2": other}, LABELS)
    close(found["miou"]["exit_1"], 0.13653699)
    close(found["macc"]["exit_1"], 0.3)
    close(found["pixel_accuracy"]["exit_1"], 0.29032258)
    each = [found[f"iou_{k}"]["exit_1"] for k in range(3)]
    close(each, [0.10526316, 0, 0.30434783])
    close(found["miou"]["ensemble"], 0.15350877)


def test_void_pixels_change_nothing():
    random = np.random.default_rng(0)
    void = LABELS == VOID
    changed = STUDENT + 9 * void[..., None] * random.normal(size=SIZE)
    for function in (pixel_cross_entropy, pixel_accuracy):
        close(function(LABELS, changed), function(LABELS, STUDENT), 1e-6)
    assert measured({"exit_1": changed}, LABELS) == measured(
        {"exit_1": STUDENT}, LABELS
    )
    nothing = np.full_like(LABELS, VOID)
    with tf.GradientTape() as tape:
        z = tf.constant(STUDENT, tf.float32)
        tape.watch(z)
        loss = pixel_cross_entropy(nothing, z)
    assert not np.any(loss) and not np.any(tape.gradient(loss, z))


def test_classes_that_do_not_occur_do_not_count():
    logits = np.zeros((1, 2, 2, 4), "float32")
    logits[..., 1] = 1.0
    found = measured({"exit_1": logits}, np.array([[[1, 1], [0, 0]]]))
    assert found["miou"]["exit_1"] == pytest.approx((0 + 0.5) / 2)
    assert found["macc"]["exit_1"] == 0.5
    assert "iou_3" not in found


def test_small_exits_are_resized_to_the_labels():
    small = np.array([[[[4.0, 0.0], [0.0, 4.0]]]], "float32")  # one row, two columns
    labels = np.array([[[0, 0, 1, 1]]])
    close(pixel_accuracy(labels, small), [1.0])
    found = measured({"exit_1": small}, labels)
    assert found["miou"]["exit_1"] == 1.0


@pytest.mark.parametrize(
    "label, message",
    [
        (np.zeros((2, 3), int), r"whole numbers \[B, H, W\], .* got int64 \[2, 3\]"),
        (np.zeros((2, 3, 3)), r"got float64 \[2, 3, 3\]"),
        (np.zeros((2, 3, 3, 3), "uint8"), r"got uint8 \[2, 3, 3, 3\]"),
        ([[1, 2], [3]], "got list"),
    ],
)
def test_labels_that_are_no_maps_are_refused(label, message):
    with pytest.raises(UserError, match=message):
        create_task("segmentation").read_label(label, (3, 3, 2))


def test_label_maps_are_looked_at():
    task, shape = create_task("segmentation"), (4, 4, 3)
    task.check_label(LABELS, shape)
    wrong = np.where(LABELS == 2, 3, LABELS)
    with pytest.raises(UserError, match=r"classes 0\.\.2 or 255 \(void\), got 3"):
        task.check_label(wrong, shape)
    with pytest.raises(UserError, match=r"hold 255 \(void\) alone"):
        task.check_label(np.full((2, 4, 4), VOID), shape)
    with pytest.raises(UserError, match="data set has one for every image"):
        task.labels_of(np.arange(3), 3)


def test_images_and_pixels_exit_where_they_are_sure():
    sure, unsure = np.float32([9.0, -9.0]), np.float32([0.0, 0.0])
    first = np.stack([[[sure, sure]], [[sure, unsure]]])  # two images of two pixels
    second = np.stack([[[-3 * sure, sure]], [[sure, 3 * sure]]])
    labels = np.array([[[0, 0]], [[0, 0]]])
    outputs = {"exit_1": first, "exit_2": second}
    task, macs = create_task("segmentation"), {"exit_1": 25, "exit_2": 100}
    batches = [(outputs, labels)]
    points = measure_maps(batches, task, macs, (0.0, 0.9, 2.0))["thresholds"]
    at_once, early, never = points
    assert at_once["exit_rates"] == {"exit_1": 1.0, "exit_2": 0.0}
    assert at_once["macs_fraction"] == 0.25 and never["macs_fraction"] == 1.0
    # the first image is sure at exit 1, of the second one pixel: 0.75 on the mean
    assert early["exit_rates"] == {"exit_1": 0.5, "exit_2": 0.5}
    assert early["macs_fraction"] == 0.625
    assert early["image"] == early["pixel"] == 1.0
    assert never["image"] == never["pixel"] < 1.0  # exit 2 is wrong at a pixel
    rows = maps_rows({"figure": "miou", "thresholds": points}, "%")
    assert rows[0][0] == "threshold" and rows[3][0] == "never"
    assert rows[2][-3:] == ["62.5 %", "100.00 %", "100.00 %"]


def test_files_from_before_the_layer_moved_are_read():
    config = keras.saving.serialize_keras_object(heads.ResizeMap((2, 3)))
    assert config["registered_name"] == "tf_mskd>ResizeMap"
    config["module"] = "tf_mskd.tasks.segmentation"
    made = keras.saving.deserialize_keras_object(config)
    assert type(made) is heads.ResizeMap and made.size == (2, 3)


def test_networks_of_any_size_get_no_exits_of_the_images_size():
    image = keras.Input((None, None, 3))
    network = keras.Model(image, keras.layers.Conv2D(4, 3, padding="same")(image))
    with pytest.raises(UserError, match="build the network for images of one size"):
        add_exits(network, [], 3, task="segmentation")
