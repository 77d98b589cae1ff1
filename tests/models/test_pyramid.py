"""Pyramid pooling: against NumPy, counted by hand, and wherever exits go."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import own_networks
from tf_mskd import UserError, add_exits, count_macs, create_model
from tf_mskd.deployment.maps import export_maps
from tf_mskd.models import blocks, sub_model
from tf_mskd.models.pyramid import pyramid_pooling
from tf_mskd.runs import build
from tf_mskd.runs.config import Config
from tf_mskd.runs.initial_weights import copy_weights
from tf_mskd.tasks import create_task

CHANNELS, OUT = 10, 8
INNER = 2  # a quarter of the channels, down
MAPS = {"task": "segmentation", "exit_head": "linear", "width": 1 / 16}
PYRAMID = {**MAPS, "pyramid_pooling": True}


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What `build_student` asks of a data set."""

    num_classes: int = 3
    image_shape: tuple = (8, 8, 1)
    mean: tuple | None = None
    std: tuple | None = None


def module(height, width):
    """Pyramid pooling alone, with batch norms that have seen something."""
    x = keras.Input((height, width, CHANNELS))
    model = keras.Model(x, pyramid_pooling(x, 4, OUT / 512, blocks.batch_norm))
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape
            layer.set_weights([random.uniform(0.5, 1.5, size) for _ in range(4)])
    return model


# ---- the module once more, in NumPy


def pooled(x, bins):
    """float [B, bins, bins, C]; bin i goes from floor(i n / bins) to the next, up."""
    found = np.zeros((len(x), bins, bins, x.shape[-1]))
    edges = [
        [(i * n // bins, -(-(i + 1) * n // bins)) for i in range(bins)]
        for n in x.shape[1:3]
    ]
    for i, (top, bottom) in enumerate(edges[0]):
        for j, (left, right) in enumerate(edges[1]):
            found[:, i, j] = x[:, top:bottom, left:right].mean((1, 2))
    return found


def stretch(size, bins):
    """float [size, bins]: what each position takes of each bin, half-pixel centres."""
    matrix = np.zeros((size, bins))
    for position in range(size):
        at = np.clip((position + 0.5) * bins / size - 0.5, 0, bins - 1)
        low = int(at)
        matrix[position, low] += 1 - (at - low)
        matrix[position, min(low + 1, bins - 1)] += at - low
    return matrix


def convolved(x, kernel):
    """A convolution with zeros around the map."""
    ring = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (ring, ring), (ring, ring), (0, 0)))
    height, width = x.shape[1:3]
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i, j in np.ndindex(*kernel.shape[:2])
    )


def layer_of(model, tag, x):
    """Convolution, batch norm by its moving statistics, ReLU."""
    (kernel,) = model.get_layer(f"exit_4_pyramid_conv{tag}").get_weights()
    norm = model.get_layer(f"exit_4_pyramid_bn{tag}").get_weights()
    gamma, beta, mean, variance = (w.astype("float64") for w in norm)
    x = convolved(x, kernel.astype("float64"))
    return np.maximum(gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta, 0)


def reference(model, x, grids):
    parts = [x]
    for bins in grids:
        y = layer_of(model, f"_{bins}", pooled(x, bins))
        rows, columns = (stretch(n, bins) for n in x.shape[1:3])
        parts.append(np.einsum("hi,wj,bijc->bhwc", rows, columns, y))
    return layer_of(model, "", np.concatenate(parts, -1))


@pytest.mark.parametrize(
    "size, grids",
    [((7, 5), (1, 2, 3)), ((8, 7), (1, 2, 3, 6)), ((1, 4), (1,))],
)
def test_the_module_is_the_formula(size, grids):
    model = module(*size)
    x = np.random.default_rng(1).normal(size=(2, *size, CHANNELS))
    expected = reference(model, x, grids)
    assert expected.shape == (2, *size, OUT) and (expected > 0).any()
    np.testing.assert_allclose(model(x, training=False), expected, rtol=1e-5, atol=1e-5)


def test_a_known_answer():
    """Zeros but for a kernel that passes the 2 by 2 bins on, the means of quarters."""
    x = keras.Input((4, 4, 4))
    model = keras.Model(x, pyramid_pooling(x, 1, 1 / 512, blocks.batch_norm))
    for layer in model.layers:
        if "conv" in layer.name:
            layer.set_weights([np.zeros(layer.kernel.shape)])
    model.get_layer("exit_1_pyramid_conv_2").set_weights([np.ones((1, 1, 4, 1)) / 4])
    kernel = np.zeros((3, 3, 7, 1))
    kernel[1, 1, 5] = 1.0  # behind the map's own four and the single bin
    model.get_layer("exit_1_pyramid_conv").set_weights([kernel])
    image = np.zeros((1, 4, 4, 4), "float32")
    image[0, :2, :2], image[0, 2:, 2:] = 8.0, 16.0
    # means of the quarters 8, 0, 0, 16; a quarter of the way between the bins' centres
    expected = [[8, 6, 2, 0], [6, 5.5, 4.5, 4], [2, 4.5, 9.5, 12], [0, 4, 12, 16]]
    told = np.asarray(model(image, training=False))[0, ..., 0]
    np.testing.assert_allclose(told, expected, rtol=3e-5)


def test_parameters_and_multiplications_by_hand():
    model = module(8, 7)
    grids = 4 * (CHANNELS * INNER + 4 * INNER)
    mixed = 9 * (CHANNELS + 4 * INNER) * OUT + 4 * OUT
    assert model.count_params() == grids + mixed
    positions = 1 + 4 + 9 + 36
    mixed = 8 * 7 * 9 * (CHANNELS + 4 * INNER) * OUT
    assert count_macs(model) == positions * CHANNELS * INNER + mixed


# ---- in a network


def from_add_exits(classes=3, shape=(8, 8, 1), task="segmentation"):
    """A network of one's own, which ends in a map of 4 channels."""
    trunk = own_networks.normalized(3, shape)
    return add_exits(trunk, [], classes, task=task, pyramid_pooling=True)


@pytest.mark.run
def test_the_last_exit_alone_reads_it():
    options = {"input_shape": (48, 48, 1), "features": ["feature_4"]}
    plain = create_model("resnet10", 3, exits="all", **MAPS, **options)
    model = create_model("resnet10", 3, exits="all", **PYRAMID, **options)
    assert {n: t.shape for n, t in model.output.items()} == {
        n: t.shape for n, t in plain.output.items()
    }
    more = (1 + 4 + 9 + 36) * 32 * 8 + 6 * 6 * 9 * (32 + 32) * 32
    for name in ("exit_4", ["exit_1", "exit_4"]):
        assert count_macs(model, name) == count_macs(plain, name) + more
    assert count_macs(model, "exit_3") == count_macs(plain, "exit_3")
    names = [layer.name for layer in model.layers if "pyramid" in layer.name]
    assert all(name.startswith("exit_4_pyramid_") for name in names) and names
    cut = sub_model(model, "exit_3")
    assert not any("pyramid" in layer.name for layer in cut.layers)
    flags = {"exits": "last", "task": "segmentation", "width": 1 / 16}
    config = Config(pyramid_pooling="yes", **flags)
    last = build.build_student(config, Shapes(3, (48, 48, 1), (0.5,), (0.5,)))
    assert len(copy_weights(last, model)) == sum(
        bool(layer.weights) for layer in last.layers
    )
    images = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 1))
    told = sub_model(model, "exit_4")(images)["exit_4"]
    np.testing.assert_allclose(last(images)["exit_4"], told, atol=1e-5)


def test_exits_stay_float32_in_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = from_add_exits()
    finally:
        keras.config.set_dtype_policy("float32")
    kinds = {layer.compute_dtype for layer in model.layers if "pyramid" in layer.name}
    assert kinds == {"bfloat16"}
    assert model(np.zeros((1, 8, 8, 1)))["exit_1"].dtype == tf.float32


def test_a_network_of_ones_own_gets_it():
    config = Config(
        model="tests.own_networks:normalized",
        task="segmentation",
        pyramid_pooling=True,
    )
    model = build.build_student(config, Shapes())
    kernel = model.get_layer("exit_1_pyramid_conv").kernel
    assert kernel.shape == (3, 3, 4 + 4 * 1, 512)
    assert model.output["exit_1"].shape == (None, 8, 8, 3)
    wide = from_add_exits(classes=512)  # as many as the map has channels
    assert wide.get_layer("exit_1_conv").kernel.shape == (1, 1, 512, 512)


def of_a_file(tmp_path):
    from_add_exits().save(tmp_path / "net.keras")
    config = Config(
        model=str(tmp_path / "net.keras"), task="segmentation", pyramid_pooling=True
    )
    return build.build_student(config, Shapes())


MISTAKES = [
    (
        lambda _: create_model("resnet10", 3, pyramid_pooling=True),
        "exits are maps, those of the task 'classification' are vectors: leave it out",
    ),
    (
        lambda _: from_add_exits(task="classification"),
        "those of the task 'classification' are vectors",
    ),
    (
        lambda _: create_model("resnet10", 3, exits=(1, 3), **PYRAMID),
        "stands before exit_4, got the exits exit_1, exit_3: build that one too",
    ),
    (
        lambda _: create_model(
            "unet", 3, task="segmentation", pyramid_pooling=True, input_shape=(8, 8, 1)
        ),
        "Model 'unet' has no pyramid_pooling",
    ),
    (
        lambda _: from_add_exits(classes=4),
        "before the last exit, .* ends in its 4 channels: give it without its last",
    ),
    (
        lambda _: from_add_exits(shape=(None, None, 1)),
        r"map of known size, exit 1 stands on \(None, None, None, 4\): build",
    ),
    (of_a_file, "before a new exit, --model=.*net.keras has its own, exit_1: leave it"),
]


@pytest.mark.parametrize("make, message", MISTAKES)
def test_mistakes_are_told_in_a_line(make, message, tmp_path):
    with pytest.raises(UserError, match=message):
        make(tmp_path)


# ---- compiled, and as files


@pytest.mark.run
def test_xla_computes_the_same_gradients():
    model = module(3, 2)
    x = tf.constant(np.random.default_rng(1).normal(size=(2, 3, 2, CHANNELS)))

    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=False) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    compiled = tf.function(gradients, jit_compile=True)()
    for found, expected in zip(compiled, gradients(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.run
def test_exported_files_tell_what_keras_tells(tmp_path):
    model = from_add_exits(shape=(9, 8, 1))  # a map of 7x6
    images = np.random.default_rng(0).integers(0, 256, (200, 9, 8, 1), "uint8")
    record = export_maps(
        model,
        create_task("segmentation"),
        tmp_path / "out",
        images[:4],
        quantize=("none", "int8"),
        calibration_images=images,
    )
    kinds = ["saved_model none", "tflite none", "tflite int8"]
    files = record["files"]
    assert [f"{file['format']} {file['quantize']}" for file in files] == kinds
    for entry in files[:2]:
        told = entry["verification"]["exit_1"]
        assert told["max_difference"] < 1e-4 and told["same_class"] > 0.999
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    told = loaded(images[:4])["exit_1"]
    np.testing.assert_array_equal(told, model(images[:4])["exit_1"])
