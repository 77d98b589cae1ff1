"""Sub-models and cuts: shared variables, equal numbers, gradients that stay inside."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mskd.models import create_model, detach_stages, exit_names, sub_model
from tf_mskd.utils.errors import UserError

SMALL = dict(input_shape=(16, 16, 3), width=1 / 16)
NETWORKS = ["resnet10", "vgg8", "wrn_10_1"]


def images(count=4):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, 16, 16, 3)).astype("float32")


def test_exit_names_are_sorted_by_depth():
    assert exit_names(["exit_10", "feature_1", "exit_2"]) == ["exit_2", "exit_10"]
    assert exit_names({"exit_2": 0, "exit_1": 0}) == ["exit_1", "exit_2"]
    assert exit_names(create_model("vgg8", 5, exits=[3, 1], **SMALL)) == [
        "exit_1",
        "exit_3",
    ]


def test_sub_model_shares_variables_and_drops_the_rest():
    model = create_model("resnet10", 5, exits="all", **SMALL)
    sub = sub_model(model, ["exit_2", "feature_1"])
    assert list(sub.output) == ["exit_2", "feature_1"]
    assert sub.name == "resnet10"
    ids = {id(v) for v in model.variables}
    assert {id(v) for v in sub.variables} < ids
    names = [layer.name for layer in sub.layers]
    assert "feature_2" in names and "feature_3" not in names
    model.get_layer("exit_2").bias.assign([9.0] * 5)
    np.testing.assert_array_equal(sub(images())["exit_2"], model(images())["exit_2"])
    assert list(sub_model(model, "exit_1").output) == ["exit_1"]


def test_sub_model_refuses_unknown_and_no_names():
    model = create_model("resnet10", 5, exits=[1, 2], **SMALL)
    with pytest.raises(UserError, match="Unknown output 'exit_3'.*exit_2"):
        sub_model(model, "exit_3")
    with pytest.raises(UserError, match="needs one output name or more, got none"):
        sub_model(model, [])


def gradient_names(model, output):
    """Paths of the variables a loss on one output gives a gradient other than zero."""
    with tf.GradientTape() as tape:
        value = model(images(), training=True)[output]
        loss = tf.reduce_sum(value * np.linspace(-1, 1, value.shape[-1]))
    variables = [v.value for v in model.trainable_variables]
    gradients = tape.gradient(loss, variables)
    return {
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is not None and np.abs(gradient).max() > 0
    }


def depth_of(path, tap_of_block=(1, 2, 3, 4, 4)):
    """The part of the network a variable lies in, from its layer's name."""
    layer = path.split("/")[0]
    words = layer.split("_")
    if words[0] == "stem":
        return 1
    if words[0] == "block":
        return tap_of_block[int(words[1]) - 1]
    return int(words[1])


@pytest.mark.parametrize("name", NETWORKS)
def test_each_exit_trains_its_own_part_alone(name):
    model = create_model(name, 5, exits="all", **SMALL)
    detached = detach_stages(model)
    assert list(detached.output) == list(model.output)
    assert {id(v) for v in detached.variables} == {id(v) for v in model.variables}
    shift = 1 if name.startswith("wrn") else 0
    last = len(model.output)
    for k in range(1, last + 1):
        reached = gradient_names(detached, f"exit_{k}")
        assert reached
        for path in reached:
            # preact_k of a wide ResNet is the first layer of the next stage
            moved = shift if path.startswith("preact") and depth_of(path) < last else 0
            assert depth_of(path) + moved == k, path
    joint = gradient_names(model, f"exit_{last}")
    assert {depth_of(path) for path in joint} == set(range(1, last + 1))


@pytest.mark.parametrize("name", NETWORKS)
def test_detached_network_gives_the_same_numbers(name):
    features = ["feature_1", "preact_1", "embedding_2"]
    model = create_model(name, 5, exits="all", features=features, **SMALL)
    detached = detach_stages(model)
    whole, cut = model(images()), detached(images())
    assert set(whole) == set(cut)
    for key in whole:
        np.testing.assert_allclose(whole[key], cut[key], atol=1e-6)


def test_outputs_of_auxiliary_heads_are_placed_between_the_cuts():
    heads = ("projection", "rotation")
    model = create_model("resnet10", 5, exits=[2, 4], aux_heads=heads, **SMALL)
    detached = detach_stages(model)
    assert list(detached.output) == list(model.output)
    assert {depth_of(p) for p in gradient_names(detached, "rotation_2")} >= {1, 2}
    reached = gradient_names(detached, "projection_4")
    assert not [p for p in reached if p.startswith(("stem", "stage_1", "stage_2"))]


def test_batch_norm_moves_once_a_step_in_the_detached_network():
    model = create_model("wrn_10_1", 5, exits="all", features=["preact_1"], **SMALL)
    feature = sub_model(model, "feature_1")
    norm = model.get_layer("preact_1")
    seen = feature(images(), training=True)["feature_1"]
    batch_mean = np.asarray(seen).mean((0, 1, 2))
    detach_stages(model)(images(), training=True)
    np.testing.assert_allclose(norm.moving_mean, 0.1 * batch_mean, rtol=1e-3, atol=1e-5)


def test_some_exits_cut_between_them_only():
    model = create_model("resnet10", 5, exits=[2, 4], **SMALL)
    detached = detach_stages(model)
    assert {depth_of(p) for p in gradient_names(detached, "exit_2")} == {1, 2}
    assert {depth_of(p) for p in gradient_names(detached, "exit_4")} == {3, 4}


def test_detached_network_saves_and_loads(tmp_path):
    detached = detach_stages(create_model("resnet10", 5, exits="all", **SMALL))
    detached.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    for key, value in detached(images()).items():
        np.testing.assert_array_equal(value, loaded(images())[key])


def test_cuts_that_cannot_be_made_are_refused():
    single = create_model("resnet10", 5, **SMALL)
    with pytest.raises(UserError, match=r"two exits or more.*got \['exit_4'\]"):
        detach_stages(single)

    image = keras.Input((4, 4, 1))
    one = keras.layers.Conv2D(1, 1, name="feature_1")(image)
    pooled = keras.layers.Flatten()(one)
    around = keras.layers.Add()([keras.layers.Conv2D(1, 1)(one), image])
    outputs = {
        "exit_1": keras.layers.Dense(2, name="exit_1")(pooled),
        "exit_2": keras.layers.Dense(2, name="exit_2")(keras.layers.Flatten()(around)),
    }
    with pytest.raises(UserError, match="cannot cut: 'exit_2' also reads the image"):
        detach_stages(keras.Model(image, outputs))
    outputs["other"] = keras.layers.Identity(name="other")(pooled)
    with pytest.raises(UserError, match="cannot place output 'other'"):
        detach_stages(keras.Model(image, outputs))
    image = keras.Input((3,))
    hidden = keras.layers.Dense(3)(image)
    plain = {
        "exit_1": keras.layers.Dense(2, name="exit_1")(hidden),
        "exit_2": keras.layers.Dense(2, name="exit_2")(hidden),
    }
    with pytest.raises(UserError, match="no layer 'feature_1' exists"):
        detach_stages(keras.Model(image, plain))
