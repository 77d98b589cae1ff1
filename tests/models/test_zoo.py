"""Every family of `keras.applications`, small, as student and as plain teacher."""

import keras
import numpy as np
import pytest

from tf_mskd import Distiller, add_exits, count_macs, load_model, save_model

LABELS = np.arange(4)
A = keras.applications
FAMILIES = {  # constructor, arguments, side of the images, taps
    "MobileNet": (A.MobileNet, {"alpha": 0.25}, 32, ["conv_pw_3_relu"]),
    "MobileNetV2": (A.MobileNetV2, {"alpha": 0.35}, 32, ["block_5_add"]),
    "MobileNetV3Small": (A.MobileNetV3Small, {}, 32, ["expanded_conv_5_add"]),
    "MobileNetV3Large": (A.MobileNetV3Large, {}, 32, ["expanded_conv_5_add"]),
    "EfficientNetB0": (A.EfficientNetB0, {}, 32, ["block4b_add"]),
    "EfficientNetV2B0": (A.EfficientNetV2B0, {}, 32, ["block4b_add"]),
    "ResNet50": (A.ResNet50, {}, 32, ["conv3_block4_out"]),
    "ResNet50V2": (A.ResNet50V2, {}, 32, ["conv3_block3_out"]),
    "VGG16": (A.VGG16, {}, 32, ["block3_pool"]),
    "VGG19": (A.VGG19, {}, 32, ["block3_pool"]),
    "DenseNet121": (A.DenseNet121, {}, 32, ["pool3_pool"]),
    "InceptionV3": (A.InceptionV3, {}, 75, ["mixed3"]),
    "InceptionResNetV2": (A.InceptionResNetV2, {}, 75, ["mixed_6a"]),
    "Xception": (A.Xception, {}, 71, ["block4_pool"]),
    "NASNetMobile": (A.NASNetMobile, {}, 32, ["normal_conv_1_5"]),
    "ConvNeXtTiny": (
        A.ConvNeXtTiny,
        {},
        32,
        ["convnext_tiny_stage_1_block_2_identity"],
    ),
}
QUICK = ["MobileNetV2", "EfficientNetV2B0", "ResNet50V2", "VGG16"]


def images(side):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (4, side, side, 3)).astype("float32")


def small(side):
    image = keras.Input((side, side, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3, 2)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(4)(x))


def plain(family):
    make, arguments, side, _ = FAMILIES[family]
    shape = {"input_shape": (side, side, 3), "include_top": False, "weights": None}
    base = make(**shape, **arguments)
    x = keras.layers.GlobalAveragePooling2D()(base.output)
    return keras.Model(base.input, keras.layers.Dense(4)(x), name=family)


def step(student, teacher, method, batch):
    distiller = Distiller(student, teacher, method)
    distiller.compile("sgd", run_eagerly=True, jit_compile=False)
    logs = distiller.train_step(batch)
    assert np.isfinite(float(logs["loss"]))
    return distiller


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=pytest.mark.run if name in QUICK else pytest.mark.slow)
        for name in FAMILIES
    ],
)
def test_a_family_teaches_and_learns(family, tmp_path):
    model, (_, _, side, taps) = plain(family), FAMILIES[family]
    x = images(side)
    student = add_exits(model, taps, 4, verbose=False)
    assert list(student.output) == ["exit_1", "exit_2"]
    expected = np.asarray(model(x, training=False))
    made = student(x, training=False)
    np.testing.assert_allclose(made["exit_2"], expected, rtol=1e-4, atol=1e-5)
    assert count_macs(student, "exit_1") > 0
    assert count_macs(student, "exit_2") == count_macs(model)

    taught = step(small(side), model, "kd", (x, LABELS))
    got = taught.teacher_outputs(x)["exit_1"]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)

    before = [v.numpy() for v in student.trainable_variables]
    learns = step(student, small(side), "mskd", (x, LABELS))
    pairs = zip(student.trainable_variables, before, strict=True)
    moved = [(variable.numpy() != old).any() for variable, old in pairs]
    assert np.mean(moved) > 0.8  # not what a scale of 1e-6 hides
    told = learns.evaluate(x, LABELS, verbose=0, return_dict=True)
    assert 0 <= told["exit_1_accuracy"] <= 1 and np.isfinite(told["loss"])

    save_model(student, tmp_path / "student.keras")
    loaded = load_model(tmp_path / "student.keras")(x, training=False)
    for name, value in student(x, training=False).items():
        np.testing.assert_allclose(loaded[name], value, rtol=1e-4, atol=1e-5)
