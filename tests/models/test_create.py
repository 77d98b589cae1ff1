"""Networks: sizes against the specification, outputs, names, scaling, saving."""

import keras
import numpy as np
import pytest

from tf_mskd.models import available_models, create_model, exit_names
from tf_mskd.utils.errors import UserError

SMALL = dict(input_shape=(16, 16, 3), width=1 / 16)
FAMILIES = {"resnet10": 4, "vgg8": 4, "wrn_10_1": 3}  # name -> number of exits
IMAGENET = dict(stem="imagenet", input_shape=(224, 224, 3))


def trainable(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.run
@pytest.mark.parametrize(
    "name, classes, size, parameters",
    [
        ("resnet10", 100, 32, 4_949_412),
        ("resnet10", 200, 64, 5_000_712),
        ("resnet18", 100, 32, 11_220_132),
        ("resnet18", 200, 64, 11_271_432),
        ("resnet34", 100, 32, 21_328_292),
        ("resnet34", 200, 64, 21_379_592),
        ("resnet50", 100, 32, 23_705_252),
        ("resnet50", 200, 64, 23_910_152),
        ("resnet101", 100, 32, 42_697_380),
        ("resnet101", 200, 64, 42_902_280),
        ("resnet152", 100, 32, 58_341_028),
        ("resnet152", 200, 64, 58_545_928),
        ("vgg8", 100, 32, 3_965_028),
        ("vgg13", 100, 32, 9_462_180),
        ("wrn_16_2", 100, 32, 703_284),
        ("wrn_40_2", 100, 32, 2_255_156),
        ("mobilenet_v1", 1000, 32, 4_231_976),
        ("mobilenet_v2", 1000, 32, 3_504_872),
    ],
)
def test_parameters_match_the_published_networks(name, classes, size, parameters):
    model = create_model(name, classes, input_shape=(size, size, 3))
    assert trainable(model) == parameters
    assert model.name == name
    assert list(model.output) == [f"exit_{3 if name.startswith('wrn') else 4}"]


@pytest.mark.run
@pytest.mark.parametrize(
    "name, parameters",
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("mobilenet_v1", 4_231_976),
        ("mobilenet_v2", 3_504_872),
    ],
)
def test_parameters_match_the_networks_of_imagenet(name, parameters):
    assert trainable(create_model(name, 1000, **IMAGENET)) == parameters


@pytest.mark.run
@pytest.mark.parametrize("name", available_models())
def test_every_listed_name_builds(name):
    task, answer = "classification", (3,)
    if name == "unet":  # which answers at every pixel
        task, answer = "restoration", (8, 8, 3)
    shape = {"input_shape": (8, 8, 3), "exits": "all", "task": task}
    model = create_model(name, 3, width=0.03, **shape)
    for output in exit_names(model):
        assert model.output[output].shape == (None, *answer)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [32, 64])
def test_maps_halve_and_heads_give_finite_logits(name, size):
    last = FAMILIES[name]
    features = [f"feature_{k}" for k in range(1, last + 1)]
    model = create_model(
        name,
        7,
        exits="all",
        features=features,
        width=1 / 16,
        input_shape=(size, size, 3),
    )
    sides = {32: [32, 16, 8, 4], 64: [64, 32, 16, 8]}[size][:last]
    if name == "vgg8" and size == 64:
        sides[-1] = 4  # block 4 is pooled too
    assert [model.output[f].shape[1] for f in features] == sides
    outputs = model(np.random.default_rng(0).integers(0, 256, (2, size, size, 3)))
    for k in range(1, last + 1):
        logits = np.asarray(outputs[f"exit_{k}"])
        assert logits.shape == (2, 7) and np.isfinite(logits).all()


def test_vgg_taps_choose_the_blocks():
    features = ["feature_1", "feature_2", "feature_3", "feature_4"]
    model = create_model("vgg8", 5, features=features, vgg_taps=(2, 3, 4, 5))
    shapes = [model.output[f].shape[1:] for f in features]
    assert shapes == [(16, 16, 128), (8, 8, 256), (4, 4, 512), (4, 4, 512)]
    model = create_model("vgg8", 5, features=features)
    shapes = [model.output[f].shape[1:] for f in features]
    assert shapes == [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512)]


def test_width_multiplier_rounds_to_at_least_one():
    features = [f"feature_{k}" for k in (1, 2, 3, 4)]
    model = create_model("resnet10", 5, features=features, width=0.3)
    # 64, 128, 256, 512 times 0.3 are 19.2, 38.4, 76.8, 153.6
    assert [model.output[f].shape[-1] for f in features] == [19, 38, 77, 154]
    thin = create_model("wrn_16_1", 5, width=0.001, features="feature_3")
    assert thin.output["feature_3"].shape[-1] == 1


def test_batch_norm_constants_and_biases():
    for name in FAMILIES:
        model = create_model(name, 5, exits="all", attention=True, **SMALL)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
                assert not layer.synchronized
            elif isinstance(layer, keras.layers.Conv2D):
                in_vgg = name == "vgg8" and layer.name.startswith("block_")
                assert (layer.bias is not None) == in_vgg
    model = create_model("resnet10", 5, synchronized_bn=True, **SMALL)
    assert model.get_layer("stem_bn").synchronized


def test_stride_2_convolutions_pad_all_four_sides():
    for name in FAMILIES:
        for head in ("dense", "separable"):
            model = create_model(
                name, 5, exits="all", exit_head=head, attention=True, **SMALL
            )
            for layer in model.layers:
                if getattr(layer, "kernel_size", None) != (3, 3):
                    continue
                if layer.strides == (1, 1):
                    assert layer.padding == "same"
                else:
                    assert layer.padding == "valid"
                    padding = model.get_layer(f"{layer.name}_pad").padding
                    assert padding == ((1, 1), (1, 1))


def test_convolutions_start_as_he_normal_over_the_fan_out():
    keras.utils.set_random_seed(3)
    model = create_model("resnet10", 5)
    kernel = np.asarray(model.get_layer("stage_4_block_1_conv_2").kernel)
    deviation = np.sqrt(2 / (9 * 512))
    assert kernel.std() == pytest.approx(deviation, rel=0.01)
    assert np.abs(kernel).max() > 3.5 * deviation  # a truncated normal ends near 2.3
    first = np.asarray(model.get_layer("stage_1_block_1_conv_1").kernel)
    second = np.asarray(model.get_layer("stage_1_block_1_conv_2").kernel)
    assert np.abs(first - second).max() > deviation  # each layer draws its own


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("exits", [[1], [2], [1, 3], [2, 3], (3, 1, 2)])
def test_any_subset_and_nothing_deeper(name, exits):
    model = create_model(name, 5, exits=exits, **SMALL)
    assert list(model.output) == [f"exit_{k}" for k in sorted(exits)]
    deepest = max(exits)
    names = [layer.name for layer in model.layers]
    for k in range(1, deepest + 1):
        assert f"feature_{k}" in names
    deeper = [f"stage_{k}_" for k in range(deepest + 1, 5)]
    assert not [n for n in names if n.startswith(tuple(deeper))]
    assert f"feature_{deepest + 1}" not in names
    heads = {n.split("_")[1] for n in names if n.startswith("exit_")}
    assert heads == {str(k) for k in exits}


@pytest.mark.parametrize("name", FAMILIES)
def test_names_do_not_depend_on_the_outputs(name):
    single = create_model(name, 5, **SMALL)
    last = exit_names(single)[0]
    for head in ("dense", "stage"):
        features = ["feature_1", "preact_1", "embedding_2"]
        multi = create_model(
            name, 5, exits="all", exit_head=head, features=features, **SMALL
        )
        names = [layer.name for layer in multi.layers]
        assert len(names) == len(set(names))
        for layer in single.layers:
            multi.get_layer(layer.name).set_weights(layer.get_weights())
        image = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3))
        np.testing.assert_allclose(single(image)[last], multi(image)[last], atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_output_layers_carry_the_names(name):
    last = FAMILIES[name]
    kinds = ("feature", "preact", "embedding")
    features = [f"{kind}_{k}" for kind in kinds for k in range(1, last + 1)]
    model = create_model(name, 5, exits="all", features=features, **SMALL)
    assert sorted(model.output_names) == sorted(model.output)
    assert set(model.output) == {*features, *(f"exit_{k}" for k in range(1, last + 1))}
    outputs = model(np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)))
    outputs = {key: np.asarray(value) for key, value in outputs.items()}
    for k in range(1, last + 1):
        feature, preact = outputs[f"feature_{k}"], outputs[f"preact_{k}"]
        if name.startswith("wrn"):  # raw map; then the next batch norm, here untrained
            assert feature.min() < 0
            np.testing.assert_allclose(preact, feature / np.sqrt(1 + 1e-5), rtol=1e-4)
        else:
            assert preact.min() < 0
            np.testing.assert_array_equal(feature, np.maximum(preact, 0))
    pooled = outputs[f"preact_{last}"].clip(0).mean((1, 2))
    np.testing.assert_allclose(outputs[f"embedding_{last}"], pooled, atol=1e-5)


def test_features_without_their_exit():
    model = create_model("wrn_16_1", 5, exits=[1], features="preact_2", **SMALL)
    assert set(model.output) == {"exit_1", "preact_2"}
    names = [layer.name for layer in model.layers]
    assert not [n for n in names if n.startswith("stage_3")]
    model = create_model("resnet10", 5, exits=[1], features=["embedding_2"], **SMALL)
    assert "exit_2" not in [layer.name for layer in model.layers]
    assert model.output["embedding_2"].shape == (None, 32)


def test_input_scaling():
    model = create_model("resnet10", 5, **SMALL)
    scaled = model.get_layer("input_scaling")(np.array([[[[0.0, 127.5, 255.0]]]]))
    expected = [-0.5071 / 0.2675, (0.5 - 0.4867) / 0.2565, (1 - 0.4408) / 0.2761]
    np.testing.assert_allclose(np.asarray(scaled).ravel(), expected, rtol=1e-5)
    model = create_model("resnet10", 5, input_shape=(16, 16, 1), width=1 / 16)
    scaled = model.get_layer("input_scaling")(np.array([[[[0.0]], [[255.0]]]]))
    np.testing.assert_allclose(np.asarray(scaled).ravel(), [-1, 1], rtol=1e-5)


def test_dropout_sits_before_dense_layers_or_inside_wrn_blocks():
    model = create_model("vgg8", 5, exits=[1, 4], dropout=0.3, **SMALL)
    drops = [n for n in model.layers if isinstance(n, keras.layers.Dropout)]
    assert sorted(n.name for n in drops) == ["exit_1_dropout", "exit_4_dropout"]
    assert {n.rate for n in drops} == {0.3}
    model = create_model("wrn_10_1", 5, exits=[3], dropout=0.3, **SMALL)
    drops = [n.name for n in model.layers if isinstance(n, keras.layers.Dropout)]
    assert drops == [f"stage_{k}_block_1_dropout" for k in (1, 2, 3)]


def test_logits_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = create_model("wrn_10_1", 5, exits="all", attention=True, **SMALL)
        outputs = model(np.zeros((2, 16, 16, 3), "uint8"))
    finally:
        keras.config.set_dtype_policy("float32")
    for name, value in outputs.items():
        assert keras.backend.standardize_dtype(value.dtype) == "float32", name
    conv = model.get_layer("stage_1_block_1_conv_1")
    assert conv.compute_dtype == "float16"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("head", ["dense", "stage"])
def test_saved_file_gives_equal_outputs(name, head, tmp_path):
    model = create_model(
        name,
        5,
        exits="all",
        exit_head=head,
        attention=True,
        dropout=0.2,
        features=["feature_1", "preact_2"],
        **SMALL,
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    image = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3))
    before, after = model(image), loaded(image)
    assert set(before) == set(after)
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(name="resnet"), "Unknown model 'resnet'; did you mean 'resnet"),
        (dict(name="wrn_17_2"), "depth of 6 n .* got 17 in 'wrn_17_2'.*'wrn_16_2'"),
        (dict(exits=[5]), r"exits of resnet10 are a selection of 1..4, got \[5\]"),
        (dict(exits=[]), r"selection of 1..4, got \[\]"),
        (dict(exits="first"), "Unknown choice of exits 'first'"),
        (dict(exit_head="dens"), "Unknown exit head 'dens'; did you mean 'dense'"),
        (dict(features=["feature_5"]), "Unknown feature 'feature_5'.*feature_4"),
        (dict(features="exit_1"), "Unknown feature 'exit_1'"),
        (dict(input_shape=(32, 32)), r"three positive ints, got \(32, 32\)"),
        (dict(num_classes=0), "num_classes must be 1 or more, got 0"),
        (dict(width=0), "width must be above 0, got 0"),
        (dict(dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
        (dict(mean=(0.5,)), r"one number for each of the 3 channels.*mean=\[0.5\]"),
        (dict(std=(1, 1, 0)), "std above 0, got"),
        (dict(name="vgg8", vgg_taps=(1, 2, 3)), r"vgg_taps takes four.*\(1, 2, 3\)"),
        (dict(name="vgg8", vgg_taps=(1, 2, 3, 4)), "end in 5"),
        (dict(name="vgg8", input_shape=(4, 4, 3)), "needs 8x8 pixels or more"),
        (dict(stem="imagnet"), "Unknown stem 'imagnet'; did you mean 'imagenet'"),
        (dict(name="vgg8", stem="imagenet"), "vgg8 has no stem for ImageNet.*'small'"),
        (dict(name="wrn_10_1", stem="imagenet"), "wrn_10_1 has no .* of resnet10, re"),
        (dict(name="unet", stem="imagenet"), "unet has no stem for ImageNet"),
        (dict(name="resnet", stem="imagenet"), "Unknown model 'resnet'"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        create_model(**{"name": "resnet10", "num_classes": 5, **arguments})
