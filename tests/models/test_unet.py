"""The U-shaped network: exits, sizes, the gradient branch, what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mskd import UserError, create_model
from tf_mskd.models.unet import Doubled
from tf_mskd.tasks.image_quality import gradient_map

SIZE = (2, 16, 12, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, SIZE, "uint8")


def unet(input_shape=SIZE[1:], **settings):
    settings = {"task": "restoration", "width": 0.125, "exits": "all", **settings}
    return create_model("unet", 3, input_shape=input_shape, **settings)


def test_exits_and_features():
    model = unet(features=["feature_1", "feature_2"], aux_heads="gradient")
    shapes = {name: tuple(t.shape[1:]) for name, t in model.output.items()}
    images = dict.fromkeys(("exit_1", "exit_2", "exit_3", "gradient_1"), SIZE[1:])
    assert shapes == {**images, "feature_1": (4, 3, 16), "feature_2": (8, 6, 8)}
    assert not model.non_trainable_variables
    layers = {layer.name for layer in unet().layers}  # which methods find maps by
    assert {f"feature_{k}" for k in (1, 2, 3)} <= layers
    first = {layer.name for layer in unet(exits=(1,)).layers}
    assert not any(name.startswith("decoder") for name in first)


def test_the_branch_reads_the_gradient_and_guides_the_decoder():
    model = unet(exits="last", aux_heads="gradient")
    layer = keras.Model(model.input, model.get_layer("gradient_input").output)
    np.testing.assert_allclose(layer(IMAGES), gradient_map(IMAGES / 255), 1e-4, 1e-6)
    cut = keras.Model(model.input, model.output["exit_3"])
    names = {layer.name for layer in cut.layers}
    assert {"gradient_encoder_1_conv_1", "gradient_decoder_conv_2"} <= names
    assert "gradient_1" not in names


def test_doubling_is_bilinear():
    x = np.random.default_rng(1).random((2, 4, 5, 3), "float32")
    made = Doubled()([x, np.zeros((2, 8, 10, 1))])
    np.testing.assert_allclose(made, tf.image.resize(x, (8, 10)), 1e-5)
    odd = Doubled()([x, np.zeros((2, 9, 11, 1))])
    np.testing.assert_array_equal(odd[:, :8, :10], made)
    np.testing.assert_array_equal(odd[:, 8:, :10], made[:, 7:])


@pytest.mark.run
def test_weights_serve_images_of_any_size():
    model, free = (unet(s, aux_heads="gradient") for s in (SIZE[1:], (None, None, 3)))
    free.set_weights(model.get_weights())
    for name, image in free(IMAGES).items():
        np.testing.assert_array_equal(image, model(IMAGES)[name])
    odd = free(IMAGES[:, :15, :7])
    assert all(image.shape == (2, 15, 7, 3) for image in odd.values())


@pytest.mark.run
def test_an_exported_network_takes_any_size(tmp_path):
    free = unet((None, None, 3))
    free.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "exported")
    for rows, columns in ((16, 12), (13, 9)):
        images = IMAGES[:, :rows, :columns].astype("float32")
        expected = free(images)
        for name, image in loaded.serve(images).items():
            np.testing.assert_allclose(image, expected[name], atol=1e-5)


def test_it_serves_label_maps_too():
    model = create_model(
        "unet", 4, task="segmentation", input_shape=(8, 8, 1), width=0.1
    )
    assert model.output["exit_3"].shape == (None, 8, 8, 4)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"task": "classification"}, "answers for every pixel, task 'classification'"),
        ({"input_shape": (3, 8, 3)}, "halves the image 2 times and needs 4x4 pixels"),
        ({"input_shape": (8, 8, None)}, "height, width and channels"),
        ({"attention": True}, "Model 'unet' has no attention"),
        ({"exit_head": "stage"}, "Model 'unet' has no exit_head"),
        ({"mean": (0.5,) * 3}, "Model 'unet' has no mean"),
        ({"std": (0.5,) * 3}, "Model 'unet' has no std"),
        ({"exits": (4,)}, r"exits of unet are a selection of 1\.\.3"),
        ({"features": "feature_4"}, "Unknown feature of unet 'feature_4'"),
        ({"aux_heads": "rotation"}, "Unknown auxiliary head of unet 'rotation'"),
    ],
)
def test_mistakes_are_told_in_a_line(settings, message):
    with pytest.raises(UserError, match=message):
        unet(**settings)


def test_other_networks_have_no_branch():
    with pytest.raises(
        UserError, match="have no auxiliary heads, got gradient|gradient"
    ):
        create_model("resnet10", 3, task="restoration", aux_heads="gradient")
    with pytest.raises(UserError, match="input_shape takes height"):
        create_model("resnet10", 3, input_shape=(None, None, 3))
