"""Published weights: equal outputs with a NumPy forward, and readable refusals."""

import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.models import numpy_networks as reference
from tests.models import torch_writer as writer
from tf_mskd.models import create_model, load_torch_weights
from tf_mskd.utils.errors import UserError

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
STATISTICS = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # ImageNet
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
# table 2 of MobileNetV2 at width 0.25, channels as torchvision rounds them
QUARTER = ((1, 8, 1, 1), (6, 8, 2, 2), (6, 8, 3, 2), (6, 16, 4, 2), (6, 24, 3, 1))
QUARTER += ((6, 40, 3, 2), (6, 80, 1, 1))
IMAGENET = {  # with torchvision's names: network, arguments, images' side, reference
    "resnet18": (
        "resnet18",
        dict(width=0.125, stem="imagenet"),
        64,
        lambda s, x: reference.torchvision_resnet(
            s, x, reference.basic_block, (2, 2, 2, 2), 8, 5
        ),
    ),
    "resnet50 of odd sides": (
        "resnet50",
        dict(width=0.125, stem="imagenet"),
        57,
        lambda s, x: reference.torchvision_resnet(
            s, x, reference.bottleneck, (3, 4, 6, 3), 8, 5
        ),
    ),
    "mobilenet_v2": (
        "mobilenet_v2",
        dict(width=0.25, stem="imagenet"),
        64,
        lambda s, x: reference.mobilenet_v2(s, x, 8, QUARTER, 1280, 5, stride=2),
    ),
    "mobilenet_v2 for small images": (
        "mobilenet_v2",
        dict(width=0.25),
        31,
        lambda s, x: reference.mobilenet_v2(s, x, 8, QUARTER, 1280, 5, stride=1),
    ),
}


def images(size=16, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (3, size, size, 3))


def scaled(given, mean, std):
    """Images as PyTorch's networks take them, float64 [B, channels, height, width]."""
    return ((given / 255 - mean) / std).transpose(0, 3, 1, 2)


def published(name, size=16, seed=0):
    """A random state dict with published names, and the logits it gives."""
    state = reference.StateDict(seed)
    logits = CASES[name][1](state, scaled(images(size), MEAN, STD))
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


def published_for_imagenet(case):
    """A network, a random state dict with torchvision's names, images and logits."""
    name, arguments, side, forward = IMAGENET[case]
    shape = {"input_shape": (side, side, 3), **STATISTICS}
    model = create_model(name, 5, exits="all", exit_head="linear", **shape, **arguments)
    state, given = reference.StateDict(0), images(side)
    logits = forward(state, scaled(given, **STATISTICS))
    return model, dict(state), given.astype("float32"), logits


def agrees(got, wanted):
    """To 1e-4 of the largest logit."""
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("case", IMAGENET)
def test_networks_of_torchvision_equal_numpy(case):
    model, state, given, logits = published_for_imagenet(case)
    load_torch_weights(model, state)
    agrees(np.asarray(model(given)["exit_4"]), logits)


# in a process of its own: PyTorch and TensorFlow crash together
TORCHVISION = """
import sys
import numpy as np, torch, torchvision
name, images, weights, logits = sys.argv[1:]
torch.manual_seed(0)
network = getattr(torchvision.models, name)(num_classes=10)
x = torch.tensor(np.load(images), dtype=torch.float32)
with torch.no_grad():
    for _ in range(20):  # moves the statistics of batch norms
        network.train()(x)
    np.save(logits, network.eval()(x).numpy())
torch.save(network.state_dict(), weights)
"""


@pytest.mark.run
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "mobilenet_v2"])
def test_equals_torchvision_where_it_is_installed(name, tmp_path):
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    given = images(64)
    np.save(tmp_path / "images.npy", scaled(given, **STATISTICS))
    paths = [tmp_path / file for file in ("images.npy", "w.pth", "logits.npy")]
    subprocess.run([sys.executable, "-c", TORCHVISION, name, *paths], check=True)
    shape = {"input_shape": (64, 64, 3), **STATISTICS}
    model = create_model(name, 10, stem="imagenet", **shape)
    load_torch_weights(model, paths[1])
    agrees(np.asarray(model(given.astype("float32"))["exit_4"]), np.load(paths[2]))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_networks_are_read_from_files_without_torch(tmp_path, suffix):
    model, state, given, logits = published_for_imagenet("resnet18")
    path = tmp_path / f"resnet18.{suffix}"
    save = writer.save_state if suffix == "pth" else writer.save_safetensors
    save(path, state)
    assert load_torch_weights(model, path) is model
    agrees(np.asarray(model(given)["exit_4"]), logits)


def test_names_of_the_other_stem_are_refused():
    model, state, _, _ = published_for_imagenet("resnet18")
    small = create_model("resnet18", 5, input_shape=(64, 64, 3), width=0.125)
    with pytest.raises(UserError, match="lacks .* first 'layer2.0.shortcut.0.weight'"):
        load_torch_weights(small, state)
    with pytest.raises(UserError, match="lacks .*'layer2.0.downsample.0.weight'"):
        load_torch_weights(model, published("resnet18")[0])


def test_a_kernel_of_other_rank_is_refused():
    model, state, _, _ = published_for_imagenet("mobilenet_v2")
    state["features.1.conv.0.0.weight"] = np.zeros((8, 3, 3))
    with pytest.raises(UserError, match=r"must become \(3, 3, 8, 1\) .* \(8, 3, 3\)"):
        load_torch_weights(model, state)


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
    with pytest.raises(UserError, match="has unknown .* its stem and its last exit"):
        load_torch_weights(model, published("resnet10")[0])


def test_missing_file_and_foreign_model_are_refused(tmp_path):
    import keras

    model = create_model("resnet10", 5, input_shape=(16, 16, 3), width=1 / 16)
    with pytest.raises(UserError, match="No file of PyTorch weights at .*none.npz"):
        load_torch_weights(model, tmp_path / "none.npz")
    image = keras.Input((4,))
    other = keras.Model(image, keras.layers.Dense(2)(image), name="other")
    mobile = create_model("mobilenet_v1", 5, width=0.1)
    for foreign in (other, mobile):
        message = f"mobilenet_v2 of create_model, got '{foreign.name}'"
        with pytest.raises(UserError, match=message):
            load_torch_weights(foreign, {})


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
