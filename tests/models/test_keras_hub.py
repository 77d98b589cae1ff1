"""Backbones of KerasHub, where it is installed, get exits and learn."""

import keras
import numpy as np
import pytest

from tf_mskd import Distiller, add_exits, load_model, save_model

pytestmark = pytest.mark.run
LABELS = np.arange(4)
RANDOM = np.random.default_rng(0)


def bert(hub):
    sizes = {"vocabulary_size": 30, "num_layers": 2, "num_heads": 2, "hidden_dim": 8}
    backbone = hub.models.BertBackbone(
        **sizes, intermediate_dim=16, max_sequence_length=6
    )
    model = keras.Model(backbone.input, backbone.output["pooled_output"])
    padding = np.repeat([[1, 1, 1, 1, 0, 0]], 4, 0)
    x = {"token_ids": RANDOM.integers(0, 30, (4, 6)), "padding_mask": padding}
    x["segment_ids"] = np.zeros((4, 6), int)
    return model, ["transformer_layer_0"], x


def vgg(hub):
    backbone = hub.models.VGGBackbone([1, 1], [4, 8], image_shape=(16, 16, 3))
    taps = [n.name for n in backbone.layers if "pool" in n.name][:1]
    return backbone, taps, RANDOM.normal(size=(4, 16, 16, 3)).astype("float32")


@pytest.mark.parametrize("make", [bert, vgg])
def test_a_backbone_gets_exits_and_learns(make, tmp_path):
    model, taps, x = make(pytest.importorskip("keras_hub"))
    student = add_exits(model, taps, 4)
    teacher = add_exits(make(pytest.importorskip("keras_hub"))[0], [], 4)
    distiller = Distiller(student, teacher, "mskd")
    distiller.compile("sgd", run_eagerly=True)
    logs = distiller.fit(x, LABELS, verbose=0).history
    assert np.isfinite(logs["loss"][0])
    save_model(student, tmp_path / "student.keras")
    loaded = load_model(tmp_path / "student.keras")(x)
    for name, value in student(x).items():
        np.testing.assert_allclose(loaded[name], value, atol=1e-5)
