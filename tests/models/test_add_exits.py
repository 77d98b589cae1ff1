"""Exits for networks from elsewhere."""

import keras
import numpy as np
import pytest

from tf_mskd.models import add_exits, count_macs, detach_stages, exit_names, sub_model
from tf_mskd.utils.errors import UserError

TAPS = ["block_3_expand_relu", "block_6_expand_relu"]


@pytest.fixture(scope="module")
def mobilenet():
    return keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, include_top=False, weights=None
    )


def tiny(end="map", units=10, **options):
    """A plain network: two convolutions, then what the case asks for."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, 2, "same", name="one", activation="relu")(image)
    x = keras.layers.Conv2D(6, 3, 2, "same", name="two", activation="relu")(x)
    if end != "map":
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if end == "logits":
        x = keras.layers.Dense(units, name="top", **options)(x)
    return keras.Model(image, x, name="tiny")


def images(side, count=2):
    return np.random.default_rng(0).normal(size=(count, side, side, 3))


@pytest.mark.parametrize("head", ["dense", "separable", "bottleneck", "linear"])
def test_keras_application(mobilenet, head):
    model = add_exits(
        mobilenet,
        TAPS,
        7,
        exit_head=head,
        attention=True,
        features=["feature_2", "embedding_3"],
    )
    assert exit_names(model) == ["exit_1", "exit_2", "exit_3"]
    assert sorted(model.output_names) == sorted(model.output)
    assert isinstance(model.get_layer("feature_1"), keras.layers.Identity)
    outputs = model(images(32))
    assert all(outputs[name].shape == (2, 7) for name in exit_names(model))
    own = np.asarray(mobilenet(images(32))).mean((1, 2))
    np.testing.assert_allclose(outputs["embedding_3"], own, rtol=1e-4, atol=1e-5)
    tap = keras.Model(mobilenet.input, mobilenet.get_layer(TAPS[1]).output)
    own = tap(images(32))
    np.testing.assert_allclose(outputs["feature_2"], own, rtol=1e-4, atol=1e-5)
    ids = {id(v) for v in model.variables}
    assert {id(v) for v in mobilenet.variables} <= ids


def test_application_saves_cuts_and_counts(mobilenet, tmp_path):
    model = add_exits(mobilenet, TAPS, 7)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    detached = detach_stages(model)
    for key, value in model(images(32)).items():
        np.testing.assert_array_equal(value, loaded(images(32))[key])
        np.testing.assert_allclose(value, detached(images(32))[key], atol=1e-5)
    first = count_macs(model, "exit_1")
    own = count_macs(mobilenet) + 1280 * 7
    assert count_macs(model, "exit_3") == own
    assert (
        max(first, own) < count_macs(model) < first + own + count_macs(model, "exit_2")
    )
    assert list(sub_model(model, "exit_1").output) == ["exit_1"]


def test_dense_head_follows_the_given_network(mobilenet):
    model = add_exits(mobilenet, TAPS, 7, exit_head="dense")
    shapes = [model.get_layer(f"exit_1_conv_{j}").kernel.shape for j in (2, 3)]
    maps = [mobilenet.get_layer(n).output.shape for n in [*TAPS, "out_relu"]]
    widths = [shape[-1] for shape in maps]
    assert shapes == [(3, 3, *widths[:2]), (3, 3, *widths[1:])]
    for j in (2, 3):
        shrinks = maps[j - 1][1] < maps[j - 2][1]
        strides = model.get_layer(f"exit_1_conv_{j}").strides
        assert strides == ((2, 2) if shrinks else (1, 1))


def test_own_logits_become_the_deepest_exit():
    net = tiny("logits")
    model = add_exits(net, ["one"], 10, features=["embedding_2", "feature_2"])
    outputs = model(images(8))
    np.testing.assert_allclose(outputs["exit_2"], net(images(8)), atol=1e-6)
    assert outputs["embedding_2"].shape == (2, 6)
    assert outputs["feature_2"].shape == (2, 2, 2, 6)


def test_vector_and_map_ends_get_a_dense_layer():
    for end in ("vector", "map", "logits"):
        model = add_exits(tiny(end, units=4), "one", 10, features="embedding_2")
        assert model.output["exit_2"].shape == (None, 10)
        width = 4 if end == "logits" else 6  # another dense layer behind 4 units
        assert model.get_layer("exit_2").kernel.shape == (width, 10)
        assert model.output["embedding_2"].shape == (None, width)


def test_logits_stay_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = add_exits(tiny("logits"), ["one"], 10)
    finally:
        keras.config.set_dtype_policy("float32")
    for value in model(images(8)).values():
        assert keras.backend.standardize_dtype(value.dtype) == "float32"


def two_outputs():
    image = keras.Input((8, 8, 3))
    layers = [keras.layers.Conv2D(4, 3, name=name) for name in ("one", "two")]
    return keras.Model(image, [layer(image) for layer in layers])


def any_size():
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, name="one")(image)
    return keras.Model(image, keras.layers.Conv2D(4, 3)(x))


@pytest.mark.parametrize("head", ["auto", "linear"])
def test_images_of_any_size_get_linear_exits(head, capsys):
    model = add_exits(any_size(), ["one"], 10, exit_head=head)
    assert "count_macs needs a fixed image size" in capsys.readouterr().out
    for side in (8, 12):
        outputs = model(images(side))
        assert all(outputs[name].shape == (2, 10) for name in ("exit_1", "exit_2"))
        mean = np.asarray(any_size_tap(model)(images(side))).mean((1, 2))
        exit_1 = model.get_layer("exit_1")
        np.testing.assert_allclose(outputs["exit_1"], exit_1(mean), atol=1e-5)


def any_size_tap(model):
    return keras.Model(model.input, model.get_layer("one").output)


@pytest.mark.parametrize(
    "net, arguments, message",
    [
        (tiny, dict(taps=["ome"]), "Unknown tap 'ome'; did you mean 'one'"),
        (tiny, dict(taps=["two"]), "Tap 'two' is the last map.*Leave this tap out"),
        (tiny, dict(taps=["two", "one"]), "shallow to deep.*'one' does not come after"),
        (tiny, dict(taps=["one", "one"]), "each once"),
        (tiny, dict(exit_head="stage"), "cannot copy the stages.*exit_head='stage'"),
        (tiny, dict(exit_head="x"), "Unknown exit head 'x'"),
        (tiny, dict(features=["preact_1"]), "Unknown feature 'preact_1'"),
        (
            lambda: tiny("vector"),
            dict(taps=["pool"]),
            "'pool' is the last map.*Leave this tap out",
        ),
        (any_size, dict(exit_head="dense"), "of known size.*but 'one' makes"),
        (any_size, dict(attention=True), "or take exit_head='linear' without att"),
        (
            lambda: tiny("logits", activation="softmax"),
            dict(),
            "tiny ends in probabilities .softmax.*classifier_activation=None",
        ),
        (two_outputs, dict(), r"one output, got \['one', 'two'\]"),
        (
            lambda: add_exits(tiny(), ["one"], 10),
            dict(),
            "one output, got",
        ),
        (
            lambda: sub_model(add_exits(tiny(), ["one"], 10), "exit_2"),
            dict(),
            "without exits, but tiny makes 'exit_2'",
        ),
    ],
)
def test_mistakes_are_named(net, arguments, message):
    with pytest.raises(UserError, match=message):
        add_exits(**{"model": net(), "taps": ["one"], "num_classes": 10, **arguments})
