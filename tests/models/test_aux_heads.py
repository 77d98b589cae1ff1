"""Auxiliary heads: names, shapes, and the network behind them unchanged."""

import keras
import numpy as np
import pytest

from tf_mskd.models import create_model, exit_names, saving, sub_model
from tf_mskd.models.aux_heads import KINDS
from tf_mskd.models.graph import available_outputs
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.names import AUX_OUTPUTS

SMALL = dict(input_shape=(16, 16, 3), width=1 / 16)
FAMILIES = {"resnet10": 4, "vgg8": 4, "wrn_10_1": 3}  # name -> number of stages
every_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3))


def with_heads(name, **arguments):
    return create_model(name, 5, aux_heads=list(KINDS), **{**SMALL, **arguments})


def numpy(outputs):
    return {name: np.asarray(value) for name, value in outputs.items()}


@every_family
def test_names_and_shapes(name, images):
    last = FAMILIES[name]
    model = with_heads(name, features=[f"feature_{last}", f"embedding_{last}"])
    outputs = numpy(model(images))
    _, height, wide, width = outputs.pop(f"feature_{last}").shape
    embedding = outputs.pop(f"embedding_{last}")
    expected = {
        f"exit_{last}": (2, 5),
        f"projection_{last}": embedding.shape,
        **{f"rotation_{k}": (2, 20) for k in range(1, last + 1)},
        f"factor_{last}": (2, height, wide, width // 2),
        f"reconstruction_{last}": (2, height, wide, width),
    }
    assert {n: v.shape for n, v in outputs.items()} == expected
    for output, value in outputs.items():
        assert np.isfinite(value).all(), output
        assert np.std(value) > 0, output


@every_family
@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_makes_its_outputs_alone(name, kind):
    last = FAMILIES[name]
    made = {
        "projection": [f"projection_{last}"],
        "rotation": [f"rotation_{k}" for k in range(1, last + 1)],
        "paraphraser": [f"factor_{last}", f"reconstruction_{last}"],
    }
    kinds = {n.rpartition("_")[0] for n in made[kind]}
    assert kinds == set(AUX_OUTPUTS[kind])
    assert tuple(AUX_OUTPUTS) == tuple(KINDS)
    model = create_model(name, 5, aux_heads=kind, **SMALL)
    assert list(model.output) == [f"exit_{last}", *made[kind]]
    # every layer that makes an output has its name
    assert sorted(model.output_names) == sorted(model.output)
    assert set(model.output) <= set(available_outputs(model))


def test_projection_is_linear_relu_linear_of_one_width():
    model = create_model("resnet10", 5, aux_heads="projection", **SMALL)
    first, second = (model.get_layer(n) for n in ("projection_dense", "projection_4"))
    for layer in (first, second):
        assert layer.kernel.shape == (32, 32) and layer.use_bias
    assert first.activation is keras.activations.relu
    assert second.activation is keras.activations.linear


@pytest.mark.parametrize("width, narrow", [(1 / 16, 16), (0.0117, 3), (0.001, 1)])
def test_paraphraser_has_three_layers_down_and_three_up(width, narrow):
    arguments = dict(input_shape=(16, 16, 3), width=width)
    model = create_model("resnet10", 5, aux_heads="paraphraser", **arguments)
    wide = model.get_layer("feature_4").output.shape[-1]
    assert narrow == max(1, wide // 2)
    layers = [n for n in model.layers if "kernel_size" in vars(n)]
    layers = [n for n in layers if n.name.startswith("paraphraser")]
    assert [n.filters for n in layers] == [wide, narrow, narrow, narrow, wide, wide]
    kinds = ["Conv2D"] * 3 + ["Conv2DTranspose"] * 3
    assert [type(n).__name__ for n in layers] == kinds
    for layer in layers:
        assert layer.kernel_size == (3, 3) and layer.use_bias
    leaky = [n for n in model.layers if isinstance(n, keras.layers.LeakyReLU)]
    assert len(leaky) == 6 and {n.negative_slope for n in leaky} == {0.1}
    names = [n.name for n in model.layers if n.name.startswith("paraphraser")]
    assert not [n for n in names if "bn" in n]


@every_family
def test_aux_heads_are_copies_of_the_stages_behind(name):
    last = FAMILIES[name]
    model = create_model(name, 5, aux_heads="rotation", **SMALL)
    layers = {layer.name: layer for layer in model.layers}
    starts = ("stage_", "block_", "preact_", "feature_")
    for k in range(1, last):
        start = f"rotation_{k}_"
        own = [n.removeprefix(start) for n in layers if n.startswith(start)]
        for name_ in own:
            if name_.startswith(starts):  # the backbone's layer, with fresh weights
                mate, copy = layers[name_], layers[start + name_]
                shapes = [w.shape for w in mate.weights]
                assert [w.shape for w in copy.weights] == shapes, copy.name
                assert not {id(w) for w in mate.weights} & {id(w) for w in copy.weights}
        stages = {int(n[8:]) for n in own if n.startswith("feature_")}
        assert stages == set(range(k + 1, last + 1))
        assert (
            layers[f"rotation_{k}"].input.shape[-1]
            == layers[f"rotation_{last}"].input.shape[-1]
        )
    conv = layers[f"rotation_{last}_conv_last"]
    width = layers[f"feature_{last}"].output.shape[-1]
    assert conv.kernel.shape == (3, 3, width, width) and conv.strides == (1, 1)


@every_family
def test_the_exits_are_the_same_bit_for_bit_beside_heads(name, images):
    plain = create_model(name, 5, exits="all", **SMALL)
    model = with_heads(name, exits="all")
    for layer in plain.layers:
        model.get_layer(layer.name).set_weights(layer.get_weights())
    names = [layer.name for layer in model.layers]
    assert len(names) == len(set(names))
    for training in (False, True):
        before = numpy(plain(images, training=training))
        after = numpy(model(images, training=training))
        for output, value in before.items():
            np.testing.assert_array_equal(after[output], value, f"{output} {training}")


@every_family
def test_saved_and_loaded_in_safe_mode(name, images, tmp_path):
    model = with_heads(name)
    saving.save_model(model, tmp_path / "model.keras")
    loaded = saving.load_model(tmp_path / "model.keras")
    before, after = numpy(model(images)), numpy(loaded(images))
    assert set(before) == set(after)
    for output, value in before.items():
        np.testing.assert_array_equal(after[output], value, output)


@every_family
def test_what_is_put_to_use_holds_no_auxiliary_head(name, images):
    plain = create_model(name, 5, exits="all", **SMALL)
    model = with_heads(name, exits="all")
    bare = sub_model(model, exit_names(model))
    assert {n.name for n in bare.layers} == {n.name for n in plain.layers}
    assert bare.count_params() == plain.count_params() < model.count_params()
    starts = ("paraphraser", *sum(AUX_OUTPUTS.values(), ()))
    assert not [n.name for n in bare.layers if n.name.startswith(starts)]
    whole, cut = numpy(model(images)), numpy(bare(images))
    assert list(cut) == list(plain.output)
    for output, value in cut.items():
        np.testing.assert_array_equal(whole[output], value, output)


@every_family
def test_a_frozen_backbone_keeps_its_statistics_in_training(name, images):
    plain = create_model(name, 5, **SMALL)
    model = with_heads(name)
    for layer in plain.layers:
        model.get_layer(layer.name).trainable = False
    own = {w.path for layer in plain.layers for w in layer.weights}
    before = {w.path: w.numpy() for w in model.weights}
    model(images, training=True)
    for weight in model.weights:
        same = np.array_equal(before[weight.path], weight.numpy())
        moves = "moving" in weight.path and weight.path not in own
        assert same != moves, weight.path


def test_early_exits_alone_still_get_their_auxiliary_heads():
    model = create_model("resnet10", 5, exits=[1], aux_heads="projection", **SMALL)
    assert list(model.output) == ["exit_1", "projection_4"]
    assert "exit_4" not in [layer.name for layer in model.layers]


def test_heads_give_float32_under_mixed_precision(images):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = create_model(
            "wrn_10_1", 5, aux_heads=["projection", "rotation"], **SMALL
        )
    finally:
        keras.config.set_dtype_policy("float32")
    for output, value in model(images).items():
        assert keras.backend.standardize_dtype(value.dtype) == "float32", output


def test_unknown_kinds_are_refused():
    with pytest.raises(
        UserError, match="Unknown auxiliary head 'projector'; did you mean 'p"
    ):
        create_model("resnet10", 5, aux_heads=["rotation", "projector"], **SMALL)
    with pytest.raises(UserError, match="Unknown auxiliary head 'au'"):
        create_model("resnet10", 5, aux_heads="au", **SMALL)
