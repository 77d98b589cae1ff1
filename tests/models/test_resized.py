"""A teacher of images of another size than the student's."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import ROOT
from tf_mskd import Distiller, save_model
from tf_mskd.models import create_model
from tf_mskd.models.resized import ResizeImages
from tf_mskd.models.saving import fingerprint
from tf_mskd.utils.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype("uint8")
LABELS = np.arange(8) % 4


def network(height=8, width=8, dtype="float32", name="net"):
    image = keras.Input((height, width, 3), dtype=dtype)
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3, name="feature_1")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, {"exit_1": keras.layers.Dense(4)(x)}, name=name)


def enlarged(images, size):
    """Bilinear by hand: pixel centres, the edge repeated."""
    for axis, new in ((1, size[0]), (2, size[1])):
        old = images.shape[axis]
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        high, part = np.minimum(low + 1, old - 1), at - low
        shape = [1] * 4
        shape[axis] = new
        part = part.reshape(shape)
        images = images.take(low, axis) * (1 - part) + images.take(high, axis) * part
    return images


@pytest.mark.parametrize("size", [16, (12, 20)])
@pytest.mark.parametrize("built", ["for it", "for any"])
def test_the_teacher_gets_the_images_resized(size, built, capsys):
    pair = size if isinstance(size, tuple) else (size, size)
    teacher = network(*(pair if built == "for it" else (None, None)), name="big")
    distiller = Distiller(network(), teacher, "kd", teacher_size=size)
    line = f"Teacher 'big' gets the images resized to {pair[0]}x{pair[1]} (bilinear)."
    assert capsys.readouterr().out.splitlines() == [line]
    expected = teacher(enlarged(IMAGES.astype("float64"), pair))["exit_1"]
    got = distiller.teacher_outputs(IMAGES)["exit_1"]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert fingerprint(distiller.teacher) == fingerprint(teacher)


def test_whole_numbers_stay_whole():
    images = ResizeImages((16, 16), "uint8")(IMAGES)
    assert images.dtype == "uint8"
    expected = enlarged(IMAGES.astype("float64"), (16, 16))
    assert abs(np.asarray(images, "float64") - expected).max() <= 0.5


def test_maps_of_the_resized_teacher_are_read():
    distiller = Distiller(network(), network(16, 16), "at", teacher_size=16)
    assert distiller.teacher_network(IMAGES)["feature_1"].shape == (8, 14, 14, 4)


def test_anything_callable_gets_its_size():
    def function(x):
        assert x.shape[1:] == (16, 16, 3)
        return tf.reduce_mean(x, (1, 2)) @ tf.eye(3, 4)

    unbuilt = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)])
    for teacher in (function, unbuilt):
        distiller = Distiller(network(), teacher, "kd", teacher_size=16)
        assert distiller.teacher_outputs(IMAGES)["exit_1"].shape == (8, 4)
    assert unbuilt.layers[-1].kernel.shape == (768, 4)


def test_the_students_own_size_changes_nothing(capsys):
    teacher = network()
    assert Distiller(network(), teacher, "kd", teacher_size=8).teacher is teacher
    assert not capsys.readouterr().out


@pytest.mark.run
def test_a_resized_teacher_learns_where_the_method_trains_it():
    teacher = network(16, 16)
    before = teacher.get_weights()
    distiller = Distiller(network(), teacher, "dml", teacher_size=16)
    distiller.compile("sgd", run_eagerly=True)
    distiller.train_step((IMAGES, LABELS))
    for old, new in zip(before, teacher.get_weights(), strict=True):
        assert (old != new).any()


@pytest.mark.run
def test_a_resized_teacher_that_has_learned_is_read_by_another_process(tmp_path):
    distiller = Distiller(network(), network(16, 16), "dml", teacher_size=16)
    save_model(distiller.teacher, tmp_path / "teacher.keras")
    read = "import tf_mskd; print(tf_mskd.load_model('teacher.keras').input.shape)"
    command = [sys.executable, "-c", read]
    paths = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"cwd": tmp_path, "env": paths, "capture_output": True, "text": True}
    done = subprocess.run(command, **options)
    assert done.stdout == "(None, 8, 8, 3)\n", done.stderr[-2000:]


@pytest.mark.run
def test_a_saved_distiller_keeps_the_size(tmp_path):
    sizes = {"width": 1 / 16, "exit_head": "linear"}
    teacher = create_model("resnet10", 4, input_shape=(16, 16, 3), **sizes)
    distiller = Distiller(network(), teacher, "kd", teacher_size=16)
    distiller.compile("sgd", jit_compile=False)
    distiller.fit(IMAGES, LABELS, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    loaded.teacher.set_weights(teacher.get_weights())
    for name, value in distiller.teacher_outputs(IMAGES).items():
        got = loaded.teacher_outputs(IMAGES)[name]
        np.testing.assert_allclose(got, value, atol=1e-6)
    steps = [d.fit(IMAGES, LABELS, verbose=0).history for d in (distiller, loaded)]
    assert steps[0]["loss"] == pytest.approx(steps[1]["loss"], rel=1e-5)


def test_what_has_no_size_is_refused():
    with pytest.raises(
        UserError, match=r"has \(16, 12, 3\).*set teacher_size=\(16, 12"
    ):
        Distiller(network(), network(16, 12), "kd")
    with pytest.raises(UserError, match="set teacher_size=16, which resizes"):
        Distiller(network(), network(16, 16), "kd")
    for wrong in (0, 2.5, True, "16", (16,), (16, -1)):
        with pytest.raises(UserError, match="pixels above 0 or a pair .height, width."):
            Distiller(network(), network(16, 16), "kd", teacher_size=wrong)
    with pytest.raises(UserError, match=r"images of teacher_size=\(12, 12\), it reads"):
        Distiller(network(), network(16, 16), "kd", teacher_size=12)
    with pytest.raises(UserError, match="resizes images for a teacher, got None"):
        Distiller(network(), method="ce", teacher_size=12)
    row = keras.Input((5,))
    table = keras.Model(row, keras.layers.Dense(4)(row))
    with pytest.raises(UserError, match=r"one image .* reads \(None, 5\): leave"):
        Distiller(table, lambda x: x, "kd", teacher_size=12)
    image, other = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    both = keras.layers.GlobalAveragePooling2D()(image + other)
    two = keras.Model([image, other], keras.layers.Dense(4)(both))
    with pytest.raises(UserError, match="one image input .* reads .*, .*: leave"):
        Distiller(two, lambda x: x[0], "kd", teacher_size=12)
