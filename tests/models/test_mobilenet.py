"""MobileNets: sizes, channels, maps and outputs of the stages, for both stems."""

import keras
import numpy as np
import pytest

from tf_mskd.models import count_macs, create_model
from tf_mskd.models.mobilenet import divisible

NAMES = ("mobilenet_v1", "mobilenet_v2")
FEATURES = [f"feature_{k}" for k in (1, 2, 3, 4)]
CHANNELS = {"mobilenet_v1": [128, 256, 512, 1024], "mobilenet_v2": [24, 32, 96, 1280]}
SIDES = [  # image, stem, the four maps: each side halved, rounded up
    (224, "imagenet", [56, 28, 14, 7]),
    (75, "imagenet", [19, 10, 5, 3]),
    (64, "small", [32, 16, 8, 4]),
    (32, "small", [16, 8, 4, 2]),
    (29, "small", [15, 8, 4, 2]),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("side", "stem", "sides"), SIDES)
def test_stages_end_at_the_last_map_of_a_size(name, side, stem, sides):
    shape = (side, side + 2, 3)
    made = create_model(name, 5, features=FEATURES, stem=stem, input_shape=shape)
    shapes = [made.output[f].shape for f in FEATURES]
    assert [shape[1] for shape in shapes] == sides
    assert [shape[3] for shape in shapes] == CHANNELS[name]


@pytest.mark.parametrize(
    "head", ["dense", "separable", "bottleneck", "stage", "linear"]
)
@pytest.mark.parametrize("name", NAMES)
def test_every_head_ends_at_the_last_map(name, head):
    shape = (37, 45, 3)  # odd sides
    made = create_model(
        name,
        5,
        exits="all",
        exit_head=head,
        width=0.1,
        stem="imagenet",
        attention=True,
        input_shape=shape,
    )
    outputs = made(np.random.default_rng(0).integers(0, 256, (2, *shape)))
    for k in (1, 2, 3, 4):
        logits = np.asarray(outputs[f"exit_{k}"])
        assert logits.shape == (2, 5) and np.isfinite(logits).all()


def test_counts_are_the_published_ones():
    shape = dict(stem="imagenet", input_shape=(224, 224, 3))
    # table 4 of MobileNetV1: 569 M; table 4 of MobileNetV2: 300 M
    assert count_macs(create_model("mobilenet_v1", 1000, **shape)) == 568_740_352
    assert count_macs(create_model("mobilenet_v2", 1000, **shape)) == 300_774_272


def test_first_block_of_each_by_hand():
    shape = dict(exits=[1], exit_head="linear", stem="imagenet", input_shape=(8, 8, 3))
    stem = 16 * 27 * 32
    v1 = stem + 16 * (9 * 32 + 32 * 64) + 4 * (9 * 64 + 64 * 128)
    v1 += 4 * (9 * 128 + 128 * 128) + 128 * 7
    assert count_macs(create_model("mobilenet_v1", 7, **shape)) == v1
    v2 = stem + 16 * (9 * 32 + 32 * 16) + 16 * 16 * 96 + 4 * (9 * 96 + 96 * 24)
    v2 += 4 * (24 * 144 + 9 * 144 + 144 * 24) + 24 * 7
    assert count_macs(create_model("mobilenet_v2", 7, **shape)) == v2


@pytest.mark.parametrize(
    ("channels", "rounded"),
    [(32, 32), (24 * 0.75, 24), (16 * 0.35, 8), (32 * 1.4, 48), (27, 32), (1, 8)],
)
def test_channels_are_multiples_of_8(channels, rounded):
    """18 is nearer to 16, which is under 0.9 of it; so is 24 to 27."""
    assert divisible(channels) == rounded


def test_the_last_channels_grow_and_do_not_shrink():
    for width, last in ((0.5, 1280), (1.4, 1792)):
        made = create_model("mobilenet_v2", 5, width=width, features="feature_4")
        assert made.output["feature_4"].shape[-1] == last


@pytest.mark.parametrize("name", NAMES)
def test_outputs_of_a_stage(name):
    kinds = ("feature", "preact", "embedding")
    features = [f"{kind}_{k}" for kind in kinds for k in (1, 2, 3, 4)]
    made = create_model(name, 5, exits="all", features=features, width=0.25)
    assert sorted(made.output_names) == sorted(made.output)
    outputs = made(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)))
    outputs = {key: np.asarray(value) for key, value in outputs.items()}
    for k in (1, 2, 3, 4):
        feature, preact = outputs[f"feature_{k}"], outputs[f"preact_{k}"]
        is_linear = name == "mobilenet_v2" and k < 4
        wanted = preact if is_linear else np.clip(preact, 0, 6)
        np.testing.assert_array_equal(feature, wanted)
        assert preact.min() < 0
    pooled = outputs["feature_4"].mean((1, 2))
    np.testing.assert_allclose(outputs["embedding_4"], pooled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_those_of_the_published_networks(name):
    made = create_model(name, 5, exits="all", exit_head="stage", dropout=0.2)
    names = [layer.name for layer in made.layers]
    assert len(names) == len(set(names))
    for layer in made.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
        elif isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            assert layer.bias is None
            if layer.strides != (1, 1):
                assert layer.padding == "valid"
                assert made.get_layer(f"{layer.name}_pad").padding == ((1, 1), (1, 1))
        elif isinstance(layer, keras.layers.Activation):
            is_ours = layer.name.startswith(("stem", "stage", "feature"))
            assert layer.activation.__name__ == "relu6" or not is_ours
    drops = [n for n in made.layers if isinstance(n, keras.layers.Dropout)]
    assert sorted(n.name for n in drops) == [f"exit_{k}_dropout" for k in (1, 2, 3, 4)]


@pytest.mark.parametrize("name", NAMES)
def test_names_do_not_depend_on_the_outputs_and_files_give_them_back(name, tmp_path):
    small = dict(width=0.1, input_shape=(16, 16, 3))
    single, multi = (
        create_model(name, 5, **small),
        create_model(name, 5, exits="all", features=["preact_1", "feature_2"], **small),
    )
    for layer in single.layers:
        multi.get_layer(layer.name).set_weights(layer.get_weights())
    image = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3))
    np.testing.assert_allclose(
        single(image)["exit_4"], multi(image)["exit_4"], atol=1e-5
    )
    multi.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    before, after = multi(image), loaded(image)
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])
