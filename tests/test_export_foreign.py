"""Exported files of networks from elsewhere compute what their Keras models do."""

import keras
import numpy as np
import pytest
from scipy.special import softmax

from tf_mskd import add_exits, export_student
from tf_mskd.deployment.saved_model import open_saved_model
from tf_mskd.deployment.tflite import open_tflite

pytestmark = pytest.mark.run
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype("uint8")


def mobilenet():
    net = keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, include_top=False, weights=None
    )
    net = keras.Model(net.input, net.get_layer("block_5_add").output)
    return add_exits(net, ["block_2_add"], 10, verbose=False)


def transfer():
    """A base within a model, with its own scaling and dropout in front of the end."""
    base = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, include_top=False, weights=None
    )
    base = keras.Model(base.input, base.get_layer("conv_pw_4_relu").output)
    image = keras.Input((32, 32, 3))
    x = base(keras.layers.Rescaling(1 / 127.5, -1)(image), training=False)
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, keras.layers.Dense(10)(x))
    return add_exits(model, ["conv_pw_2_relu"], 10, verbose=False)


@pytest.mark.parametrize("make", [mobilenet, transfer])
def test_exported_files_equal_the_model(make, tmp_path):
    student = make()
    export_student(student, tmp_path / "out", IMAGES)
    made = student(IMAGES, training=False)
    for run in (
        open_saved_model(tmp_path / "out" / "saved_model"),
        open_tflite(tmp_path / "out" / "student_float32.tflite"),
    ):
        for name in ("exit_1", "exit_2"):
            got = run[name](image=IMAGES)["probabilities"]
            expected = softmax(np.asarray(made[name], "float64"), -1)
            np.testing.assert_allclose(got, expected, atol=1e-4)
