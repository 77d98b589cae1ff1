"""Fused and folded batch norms: the numbers of the layers they stand for."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_mskd
from tf_mskd.models.graph import sub_model
from tf_mskd.training.batch_norm import (
    FoldedConv,
    FusedBatchNorm,
    fold_batch_norms,
    fuse_batch_norms,
)

NETWORKS = ("resnet10", "resnet50", "vgg8", "wrn_10_1")


def network(name, **arguments):
    """A small network whose norms are no identities, and images for it."""
    model = tf_mskd.create_model(
        name, 10, exits="all", width=0.1, input_shape=(16, 16, 3), **arguments
    )
    generator = np.random.default_rng(0)
    for weight in model.weights:
        low = 0.5 if "variance" in weight.path or "gamma" in weight.path else -0.5
        if len(weight.shape) == 1 and "normalization" not in weight.path:
            weight.assign(generator.uniform(low, 1.5, weight.shape))
    return model, generator.integers(0, 256, (6, 16, 16, 3)).astype("uint8")


def kinds(model, cls):
    return [layer for layer in model.layers if isinstance(layer, cls)]


def snapshot(model):
    return {w.path: w.numpy().copy() for w in model.weights}


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_outputs_are_those_of_the_network(name):
    model, images = network(name)
    folded = fold_batch_norms(model)
    assert kinds(folded, FoldedConv)
    expected, got = model(images, training=False), folded(images, training=False)
    assert list(got) == list(expected)
    for key, value in expected.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(got[key], value, atol=2e-5 * scale)
    assert {w.path for w in folded.weights} == {w.path for w in model.weights}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_folded_for_good_has_weights_of_its_own(name):
    model, images = network(name)
    folded = fold_batch_norms(model, for_good=True)
    shared = fold_batch_norms(model)
    assert not kinds(folded, FoldedConv)
    norms = [kinds(m, keras.layers.BatchNormalization) for m in (folded, shared)]
    assert norms[0] == norms[1]  # those behind no convolution
    expected = model(images, training=False)
    for layer in kinds(shared, FoldedConv):  # must reach the copy no more
        layer.norm.moving_mean.assign(layer.norm.moving_mean + 1.0)
    got = folded(images, training=False)
    assert list(got) == list(expected)
    for key, value in expected.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(got[key], value, atol=2e-5 * scale)


def test_a_folded_network_follows_its_weights():
    model, images = network("resnet10")
    folded = fold_batch_norms(model)
    before = folded(images)["exit_4"].numpy()
    model.get_layer("stem_bn").gamma.assign(model.get_layer("stem_bn").gamma * 2.0)
    after = folded(images)["exit_4"].numpy()
    assert np.abs(after - before).max() > 0.01 * np.abs(before).max()
    expected = model(images, training=False)["exit_4"].numpy()
    np.testing.assert_allclose(after, expected, atol=2e-5 * np.abs(expected).max())


def test_kernels_are_folded_when_their_turn_comes():
    """Inlined, all would be folded at the start of a step and held until used."""
    model, images = network("resnet10")
    folded = fold_batch_norms(model)
    forward = tf.function(lambda images: folded(images, training=False))
    graph = forward.get_concrete_function(images).graph
    inner = {f.signature.name: f for f in graph.as_graph_def().library.function}
    calls = [op for op in graph.get_operations() if op.type == "PartitionedCall"]
    assert len(calls) == len(kinds(folded, FoldedConv))
    assert all(inner[op.get_attr("f").name].attr["_noinline"].b for op in calls)


def test_a_convolution_with_other_readers_stays():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    y = keras.layers.BatchNormalization(name="norm")(x)
    both = keras.layers.Add()([x, y])
    assert not kinds(fold_batch_norms(keras.Model(inputs, {"a": both})), FoldedConv)
    given = keras.Model(inputs, {"a": y, "b": x})
    assert not kinds(fold_batch_norms(given), FoldedConv)
    assert kinds(fold_batch_norms(keras.Model(inputs, {"a": y})), FoldedConv)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fused_step_is_the_step_of_the_network(name):
    model, images = network(name)
    fused = fuse_batch_norms(model)
    norms = kinds(model, keras.layers.BatchNormalization)
    assert len(kinds(fused, FusedBatchNorm)) == len(norms)
    start, results = snapshot(model), []
    for net in (model, fused):
        for weight in model.weights:
            weight.assign(start[weight.path])
        with tf.GradientTape() as tape:
            outputs = net(images, training=True)
            loss = sum(tf.reduce_mean(tf.square(v)) for v in outputs.values())
        gradients = tape.gradient(loss, model.trainable_weights)
        results.append((float(loss), gradients, snapshot(model)))
    (loss, gradients, after), (fused_loss, fused_gradients, fused_after) = results
    np.testing.assert_allclose(fused_loss, loss, rtol=1e-4)
    largest = max(float(tf.reduce_max(tf.abs(g))) for g in gradients)
    for g, h in zip(gradients, fused_gradients, strict=True):
        np.testing.assert_allclose(h, g, atol=1e-3 * largest)
    moved = 0
    for path, value in after.items():
        np.testing.assert_allclose(fused_after[path], value, rtol=1e-3, atol=1e-4)
        moved += not np.array_equal(value, start[path])
    assert moved == 2 * len(norms)


def test_statistics_and_output_against_numpy():
    layer = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    layer.build((None, 3, 3, 2))
    layer.gamma.assign([2.0, 0.5])
    layer.beta.assign([1.0, -1.0])
    x = np.random.default_rng(0).normal(3.0, 2.0, (4, 3, 3, 2))
    got = FusedBatchNorm(layer)(x.astype("f4"), training=True)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))  # the biased one
    expected = (x - mean) / np.sqrt(variance + 1e-5) * [2.0, 0.5] + [1.0, -1.0]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, rtol=1e-5)


def test_frozen_norms_keep_their_statistics():
    model, images = network("vgg8")
    for layer in kinds(model, keras.layers.BatchNormalization):
        layer.trainable = False
    start, fused = snapshot(model), fuse_batch_norms(model)
    got = fused(images, training=True)["exit_4"]
    for path, value in snapshot(model).items():
        np.testing.assert_array_equal(value, start[path])
    expected = model(images, training=False)["exit_4"]
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def test_synchronised_norms_are_left_alone():
    model, _ = network("resnet10", synchronized_bn=True)
    assert fuse_batch_norms(model) is model


def test_a_part_of_a_network_can_be_fused():
    model, images = network("resnet10")
    part = fuse_batch_norms(sub_model(model, ["exit_1", "feature_2"]))
    assert list(part(images, training=True)) == ["exit_1", "feature_2"]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model, images = network("resnet10")
        fused, folded = fuse_batch_norms(model), fold_batch_norms(model)
        expected = model(images, training=False)["exit_4"].numpy().astype("f4")
        got = folded(images, training=False)["exit_4"].numpy().astype("f4")
        np.testing.assert_allclose(got, expected, atol=0.05 * np.abs(expected).max())
        expected = model(images, training=True)["exit_4"].numpy().astype("f4")
        got = fused(images, training=True)["exit_4"].numpy().astype("f4")
        np.testing.assert_allclose(got, expected, atol=0.05 * np.abs(expected).max())
    finally:
        keras.config.set_dtype_policy("float32")


def inputs(op):
    return [tensor.op for tensor in op.inputs]


def test_the_student_waits_for_the_teacher(tiny, digits):
    """So that the maps of one network at a time are held."""
    images, labels = digits
    distiller = tf_mskd.Distiller(tiny(), tiny(), "mskd")
    distiller.compile(tf_mskd.SGD(0.1), jit_compile=False)
    step = tf.autograph.experimental.do_not_convert(distiller.train_step)
    graph = tf.function(step).get_concrete_function((images[:8], labels[:8])).graph
    norms = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3"]
    before, new = set(), norms[:1]
    while new:
        before.update(new)
        new = {o for op in new for o in (*inputs(op), *op.control_inputs)} - before
    convs = [op for op in before if op.type in ("Conv2D", "PartitionedCall")]
    assert len(convs) == len(kinds(distiller.teacher, keras.layers.Conv2D)) + 1


def called_twice(**fixed):
    """One convolution and one norm, each called on two images."""
    conv, norm = keras.layers.Conv2D(3, 3), keras.layers.BatchNormalization()
    images = [keras.Input((6, 6, 2)) for _ in range(2)]
    maps = [norm(conv(image), **fixed) for image in images]
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()(maps))
    return keras.Model(images, {"exit_1": pooled}), norm


@pytest.mark.parametrize("fixed", [{}, {"training": False}])
@pytest.mark.parametrize("change", [fuse_batch_norms, fold_batch_norms])
def test_a_pair_that_is_called_twice_stays_one_pair(change, fixed):
    model, norm = called_twice(**fixed)
    norm.set_weights([np.arange(1.0, 4.0), np.arange(3.0), np.ones(3), 2 * np.ones(3)])
    images = list(np.random.default_rng(0).normal(size=(2, 4, 6, 6, 2)))
    training = change is fuse_batch_norms
    before = model.get_weights()
    expected = model(images, training=training)["exit_1"]
    after = model.get_weights()
    model.set_weights(before)
    got = change(model)(images, training=training)["exit_1"]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    for weight, value in zip(model.weights, after, strict=True):
        np.testing.assert_allclose(weight, value, atol=1e-5)


def test_a_norm_behind_two_convolutions_is_not_folded():
    norm = keras.layers.BatchNormalization()
    image = keras.Input((6, 6, 2))
    maps = [norm(keras.layers.Conv2D(3, 1)(image)) for _ in range(2)]
    model = keras.Model(image, {"exit_1": keras.layers.Add()(maps)})
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 2))
    got = fold_batch_norms(model)(images)["exit_1"]
    np.testing.assert_allclose(got, model(images)["exit_1"], atol=1e-5)
