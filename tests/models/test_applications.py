"""Networks of keras.applications read raw images as their own preprocess_input says."""

import keras
import numpy as np
import pytest

from tf_mskd.models.applications import application_arguments, create_application
from tf_mskd.utils.errors import UserError

SHAPE = (32, 32, 3)
SMALL = {"name": "MobileNetV2", "alpha": 0.35}


def build(name, shape=SHAPE, **arguments):
    return create_application(name, 10, shape, **arguments)


@pytest.mark.run
@pytest.mark.parametrize(
    "name, family",
    [
        ("MobileNetV2", "mobilenet_v2"),  # [-1, 1]
        ("VGG16", "vgg16"),  # BGR without the mean
        ("DenseNet121", "densenet"),  # normalized
        ("EfficientNetB0", "efficientnet"),  # nothing
    ],
)
def test_raw_images_arrive_as_the_family_wants_them(name, family):
    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype("float32")
    module = getattr(keras.applications, family)
    wanted = module.preprocess_input(images.copy())
    network = build(name)
    steps = [layer for layer in network.layers if layer.name == "input_scaling"]
    found = keras.Model(network.input, steps[0].output)(images) if steps else images
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.run
def test_the_scaling_is_part_of_the_network_and_its_file(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype("float32")
    network = build("VGG16")
    plain = keras.applications.VGG16(input_shape=SHAPE, include_top=False, weights=None)
    plain.set_weights(network.get_weights())
    wanted = plain(keras.applications.vgg16.preprocess_input(images.copy()))
    network.save(tmp_path / "network.keras")
    read = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
    np.testing.assert_allclose(read(images), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.run
@pytest.mark.parametrize("name", ["w.weights.h5", "w.h5"])
def test_weights_come_from_a_file_and_must_fit(name, tmp_path):
    source = build(**SMALL)
    save = source.save_weights if "weights" in name else source.save
    save(tmp_path / name)
    made = build(**SMALL, weights=tmp_path / name)
    for one, two in zip(source.get_weights(), made.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(UserError, match="w.*' holds no weights.* include_top=true"):
        build(**SMALL, include_top=True, weights=tmp_path / name)


def test_a_file_of_few_of_the_weights_is_refused(tmp_path):
    small = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    small.save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(UserError, match="w.weights.h5' holds no weights of keras:"):
        build("VGG16", weights=tmp_path / "w.weights.h5")


def test_mistakes_are_refused_by_name():
    assert application_arguments("MobileNet").keys() == {
        "alpha",
        "depth_multiplier",
        "dropout",
        "include_top",
    }
    with pytest.raises(UserError, match="'mobilenetv2'; did you mean 'MobileNetV2'"):
        build("mobilenetv2")
    with pytest.raises(UserError, match="keras:MobileNetV2 'alhpa'; .* 'alpha'"):
        build("MobileNetV2", alhpa=1.0)
    with pytest.raises(UserError, match="keras:InceptionV3 cannot be built: .*75x75"):
        build("InceptionV3")
    with pytest.raises(UserError, match="VGG16 reads RGB images, .* have 1 channels"):
        build("VGG16", (32, 32, 1))


def test_the_end_is_logits_with_the_top():
    network = build("VGG16", include_top=True)
    assert network.output.shape == (None, 10)
    assert network.layers[-1].activation is keras.activations.linear
