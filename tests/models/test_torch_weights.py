"""Published weights: equal outputs with a NumPy forward, and readable refusals."""

import importlib.util
import pathlib
import sys

import numpy as np
import pytest

from tests.models import numpy_networks as reference
from tf_mskd.models import create_model, load_torch_weights
from tf_mskd.utils.errors import UserError

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
CASES = {
    "resnet10": (
        dict(width=1 / 16),
        lambda s, x: reference.resnet(s, x, reference.basic_block, (1, 1, 1, 1), 4, 5),
    ),
    "resnet18": (
        dict(width=1 / 16),
        lambda s, x: reference.resnet(s, x, reference.basic_block, (2, 2, 2, 2), 4, 5),
    ),
    "resnet50": (
        dict(width=1 / 32),
        lambda s, x: reference.resnet(s, x, reference.bottleneck, (3, 4, 6, 3), 2, 5),
    ),
    "vgg8": (
        dict(width=1 / 16),
        lambda s, x: reference.vgg(s, x, [[4], [8], [16], [32], [32]], 5),
    ),
    "vgg16": (
        dict(width=1 / 16, vgg_taps=(2, 3, 4, 5)),
        lambda s, x: reference.vgg(
            s, x, [[4, 4], [8, 8], [16, 16, 16], [32, 32, 32], [32, 32, 32]], 5
        ),
    ),
    "wrn_16_2": (dict(width=1 / 4), lambda s, x: reference.wrn(s, x, 2, 4, 8, 5)),
    "wrn_16_1": (dict(width=1 / 4), lambda s, x: reference.wrn(s, x, 2, 4, 4, 5)),
}


def images(size=16, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (3, size, size, 3))


def published(name, size=16, seed=0):
    """A random state dict with published names, and the logits it gives."""
    scaled = (images(size) / 255 - MEAN) / STD
    state = reference.StateDict(seed)
    logits = CASES[name][1](state, scaled.transpose(0, 3, 1, 2))
    return dict(state), logits


@pytest.mark.parametrize("name", CASES)
def test_loaded_network_equals_numpy(name):
    state, logits = published(name)
    model = create_model(
        name, 5, input_shape=(16, 16, 3), exits="all", **CASES[name][0]
    )
    assert load_torch_weights(model, state) is model
    last = model(images().astype("float32"))[sorted(model.output)[-1]]
    np.testing.assert_allclose(np.asarray(last), logits, rtol=1e-4, atol=1e-4)


def test_vgg_pools_after_block_4_at_64_pixels():
    state, logits = published("vgg8", size=64)
    model = create_model("vgg8", 5, input_shape=(64, 64, 3), width=1 / 16)
    load_torch_weights(model, state)
    got = np.asarray(model(images(64).astype("float32"))["exit_4"])
    np.testing.assert_allclose(got, logits, rtol=1e-4, atol=1e-4)


def test_reads_npz_file(tmp_path):
    state, logits = published("resnet10")
    np.savez(tmp_path / "weights.npz", **state)
    model = create_model("resnet10", 5, input_shape=(16, 16, 3), width=1 / 16)
    load_torch_weights(model, tmp_path / "weights.npz")
    got = np.asarray(model(images().astype("float32"))["exit_4"])
    np.testing.assert_allclose(got, logits, rtol=1e-4, atol=1e-4)


def spoiled(change):
    state, _ = published("resnet10")
    change(state)
    return state


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("layer1.0.bn1.bias"), "lacks 1 .*layer1.0.bn1.bias"),
        (lambda s: s.update(extra=s["conv1.weight"]), "has unknown 1.*'extra'"),
        (
            lambda s: s.update({"linear.weight": np.zeros((7, 32))}),
            r"'linear.weight' must become \(32, 5\) for resnet10, got \(32, 7\)",
        ),
    ],
)
def test_misfit_is_refused_and_changes_nothing(change, message):
    model = create_model("resnet10", 5, input_shape=(16, 16, 3), width=1 / 16)
    before = [np.array(w) for w in model.get_weights()]
    with pytest.raises(UserError, match=message):
        load_torch_weights(model, spoiled(change))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_model_without_last_exit_is_refused():
    model = create_model(
        "resnet10", 5, input_shape=(16, 16, 3), width=1 / 16, exits=[2]
    )
    with pytest.raises(UserError, match="has unknown .* a model with its last exit"):
        load_torch_weights(model, published("resnet10")[0])


def test_missing_file_and_foreign_model_are_refused(tmp_path):
    import keras

    model = create_model("resnet10", 5, input_shape=(16, 16, 3), width=1 / 16)
    with pytest.raises(UserError, match=r"read from an .npz file, got .*none.npz"):
        load_torch_weights(model, tmp_path / "none.npz")
    image = keras.Input((4,))
    other = keras.Model(image, keras.layers.Dense(2)(image), name="other")
    with pytest.raises(UserError, match="knows the networks of create_model.*'other'"):
        load_torch_weights(other, {})


@pytest.fixture
def convert_torch():
    path = pathlib.Path(__file__).parents[2] / "tools" / "convert_torch.py"
    spec = importlib.util.spec_from_file_location("convert_torch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_converter_unwraps_checkpoints(convert_torch):
    for checkpoint in (
        {"module.fc.bias": 0},
        {"epoch": 1, "model": {"fc.bias": 0}},
        {"state_dict": {"module.fc.bias": 0}},
    ):
        assert convert_torch.unwrap(checkpoint) == {"fc.bias": 0}


def test_converter_says_when_torch_is_missing(convert_torch, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert convert_torch.main(["convert_torch.py", "a.pth", "b.npz"]) == 2
    assert "needs PyTorch" in capsys.readouterr().out
    assert convert_torch.main(["convert_torch.py"]) == 2
    assert "Usage" in capsys.readouterr().out
