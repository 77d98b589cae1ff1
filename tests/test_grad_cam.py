"""Grad-CAM: known answers in float64, invariances, every network, other people's."""

import keras
import numpy as np
import pytest

from tests.reference import numeric_gradient
from tf_mskd import UserError, create_model, grad_cam
from tf_mskd.models.taps import last_map
from tf_mskd.training import grad_cam as module
from tf_mskd.utils.private import node_of

IMAGES = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 1)).astype("uint8")


def network(head="pool", size=8, classes=4, last=None):
    """A convolution, "map", and a head behind it."""
    image = keras.Input((size, size, 1))
    x = keras.layers.Rescaling(1 / 128, -1)(image)
    x = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="map")(x)
    if head == "pool":
        x = keras.layers.GlobalAveragePooling2D()(x)
    else:
        x = keras.layers.Flatten()(x)
        x = keras.layers.Dense(6, "tanh", name="hidden")(x)
    x = keras.layers.Dense(classes, last, name="logits")(x)
    return keras.Model(image, x, name="small")


def values_of(model, layer, images):
    return np.float64(keras.Model(model.input, model.get_layer(layer).output)(images))


def weights_of(model, layer):
    return [np.float64(w) for w in model.get_layer(layer).get_weights()]


def cam(alpha, maps):
    """relu(sum_c alpha_c A_c) over its maximum; alpha [N, C], maps [N, H, W, C]."""
    found = np.maximum(np.einsum("nc,nhwc->nhw", alpha, maps), 0)
    highest = found.max((1, 2), keepdims=True)
    return found / np.where(highest > 0, highest, 1)


def test_behind_pooling_and_a_dense_layer_it_is_cam():
    """Zhou et al. 2016: alpha_c is the weight from channel to class, over h w."""
    model = network()
    maps, (kernel, _) = values_of(model, "map", IMAGES), weights_of(model, "logits")
    classes = np.array([2, 0, 2])
    expected = cam(kernel.T[classes] / 64, maps)
    assert expected.max() == 1
    got = grad_cam(model, IMAGES, classes=classes)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    told = np.argmax(model(IMAGES), -1)
    expected = cam(kernel.T[told] / 64, maps)
    np.testing.assert_allclose(grad_cam(model, IMAGES), expected, atol=1e-6)


def test_a_dense_head_by_finite_differences():
    model = network("dense")
    maps = values_of(model, "map", IMAGES)
    hidden, bias = weights_of(model, "hidden")
    kernel, last = weights_of(model, "logits")

    def logit(values):
        return (np.tanh(values.reshape(-1) @ hidden + bias) @ kernel + last)[3]

    alpha = np.array([numeric_gradient(logit, a).mean((0, 1)) for a in maps])
    got = grad_cam(model, IMAGES, classes=3)
    np.testing.assert_allclose(got, cam(alpha, maps), atol=1e-5)


def test_the_map_is_resized_between_the_centres_of_its_places():
    """One row of two places onto four: weights 3/4 and 1/4 in the middle."""
    image = keras.Input((1, 4, 1))
    x = keras.layers.AveragePooling2D((1, 2), name="map")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(2, name="logits")(x))
    model.get_layer("logits").set_weights([np.array([[1.0, -1.0]]), np.zeros(2)])
    got = grad_cam(model, [[[[2.0], [2.0], [8.0], [8.0]]]], classes=0)
    np.testing.assert_allclose(got, [[[0.25, 0.4375, 0.8125, 1.0]]], atol=1e-6)
    # what speaks against a class is no evidence for it
    assert not grad_cam(model, [[[[2.0], [2.0], [8.0], [8.0]]]], classes=1).any()


def test_constants_and_scales_of_the_logits_change_nothing():
    model, other = network("dense"), network("dense")
    other.set_weights(model.get_weights())
    kernel, bias = model.get_layer("logits").get_weights()
    before = grad_cam(model, IMAGES, classes=1)
    assert before.any()
    for scale, constant in ((1.0, 7.0), (3.0, 0.0)):
        other.get_layer("logits").set_weights([scale * kernel, bias + constant])
        got = grad_cam(other, IMAGES, classes=1)
        np.testing.assert_allclose(got, before, atol=1e-5)


def test_an_image_does_not_depend_on_its_batch(monkeypatch):
    model = network("dense")
    before = grad_cam(model, IMAGES)
    monkeypatch.setattr(module, "BATCH", 2)
    np.testing.assert_allclose(grad_cam(model, IMAGES), before, atol=1e-6)
    assert grad_cam(model, IMAGES[:0]).shape == (0, 8, 8)


def test_what_goes_around_the_map_is_held():
    """Of a map and a mask made from the image, the mask counts as it is."""
    image = keras.Input((8, 8, 1))
    maps = keras.layers.Conv2D(3, 3, padding="same", name="map")(image)
    mask = keras.layers.Conv2D(3, 3, padding="same", activation="sigmoid", name="m")(
        image
    )
    product = keras.layers.Multiply(name="product")([maps, mask])
    pooled = keras.layers.GlobalAveragePooling2D()(product)
    model = keras.Model(image, keras.layers.Dense(2, name="logits")(pooled))
    kernel = weights_of(model, "logits")[0][:, 1]
    images = np.float32(IMAGES / 255)
    a, m = values_of(model, "map", images), values_of(model, "m", images)
    expected = cam(kernel * m.mean((1, 2)), a)
    got = grad_cam(model, images, layer="map", classes=1)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    expected = cam(np.tile(kernel, (3, 1)), a * m)
    np.testing.assert_allclose(grad_cam(model, images, classes=1), expected, atol=1e-5)


@pytest.mark.run
@pytest.mark.parametrize(
    ("name", "exit_head", "attention", "expected"),
    [
        ("resnet10", "dense", False, ["exit_1_relu_4", "feature_4"]),
        ("resnet10", "bottleneck", True, ["exit_1_relu_3", "feature_4"]),
        ("vgg8", "separable", False, ["exit_1_relu_4b", "feature_4"]),
        ("wrn_16_1", "linear", False, ["exit_1_relu", "exit_3_relu"]),
        ("wrn_16_1", "linear", True, ["exit_1_attention", "exit_3_relu"]),
    ],
)
def test_an_exit_is_explained_by_the_map_that_it_pools(
    name, exit_head, attention, expected
):
    model = create_model(
        name, 4, exits="all", width=1 / 16, exit_head=exit_head, attention=attention
    )
    ends = [list(model.output)[0], list(model.output)[-1]]
    maps = [last_map(model.output[end], []) for end in ends]
    assert [node_of(tensor).operation.name for tensor in maps] == expected
    assert [f"embedding_{end[-1]}" for end in ends] == [
        node_of(tensor).operation._outbound_nodes[-1].operation.name for tensor in maps
    ]


@pytest.mark.run
@pytest.mark.parametrize(
    ("name", "exit_head"),
    [
        ("resnet10", "dense"),
        ("resnet10", "stage"),
        ("resnet50", "linear"),
        ("vgg8", "separable"),
        ("wrn_16_1", "bottleneck"),
    ],
)
def test_every_exit_of_every_family_gives_maps(name, exit_head):
    model = create_model(name, 4, exits="all", width=1 / 8, exit_head=exit_head)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3))
    before = [w.copy() for w in model.get_weights()]
    for exit in model.output:
        maps = grad_cam(model, images, exit)
        assert maps.dtype == np.float32 and maps.shape == (2, 32, 32)
        assert np.isfinite(maps).all() and maps.min() >= 0
        assert set(maps.max((1, 2))) <= {0, np.float32(1)}
    after = model.get_weights()
    assert all((a == b).all() for a, b in zip(after, before, strict=True))
    np.testing.assert_array_equal(grad_cam(model, images), maps)  # the deepest exit


@pytest.mark.run
def test_a_model_from_elsewhere():
    """Plain; nested in another, behind augmentation, frozen and of whole numbers."""
    plain = keras.applications.MobileNetV2(
        (64, 64, 3), alpha=0.35, weights=None, classes=3, classifier_activation=None
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("uint8")
    expected = grad_cam(plain, images)
    assert (expected.max((1, 2)) == 1).all()
    got = grad_cam(plain, images, layer="out_relu")
    np.testing.assert_array_equal(got, expected)
    plain.trainable = False
    image = keras.Input((64, 64, 3), dtype="uint8")
    nested = keras.Model(image, plain(keras.layers.RandomFlip()(image)))
    np.testing.assert_allclose(grad_cam(nested, images), expected, atol=1e-4)
    sequential = keras.Sequential([keras.Input((64, 64, 3)), plain])
    for layer in (None, "out_relu"):
        got = grad_cam(sequential, images, layer=layer)
        np.testing.assert_allclose(got, expected, atol=1e-4)
    inner = grad_cam(sequential, images, layer="block_5_add")
    assert abs(inner - expected).max() > 0.1
    with pytest.raises(UserError, match="the exit 'blok_5_add'; did you mean 'bl"):
        grad_cam(sequential, images, layer="blok_5_add")


def test_mistakes_are_told_in_one_line(tiny):
    model, exits = network(), tiny(exits=(1, 2))
    table = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    flat = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    words = keras.Input((7,), dtype="int32")
    text = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(9, 4)(words))
    text = keras.Model(words, keras.layers.Dense(3)(text))
    dense = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 1)])
    one = "one image input .B, H, W, C., got "
    for message, arguments in {
        one + r"a Sequential of \(None, 8\)": (table, IMAGES),
        one + r"a Functional of \(None, 7\)": (text, IMAGES),
        one + "a list without a graph": ([], IMAGES),
        "No map .B, H, W, C. leads to the logits": (flat, IMAGES),
        r"must be logits .B, classes., got maps \(None, 8, 8, 3\)": (dense, IMAGES),
        "got softmax .*without its last activation": (network(last="softmax"), IMAGES),
        "Unknown exit 'exit_3'; did you mean 'exit_[12]'": (exits, IMAGES, "exit_3"),
        "the exit 'mpa'; did you mean 'map'": (model, IMAGES, None, "mpa"),
        "the exit 'logits'. Known: map, resc": (model, IMAGES, None, "logits"),
        r"must be .N, 8, 8, 1., got .3, 8, 8.: .* image.None.": (model, IMAGES[..., 0]),
        r"must be .N, 8, 8, 1., got .3, 8, 4, 1.": (model, IMAGES[:, :, :4]),
        r"in .0, 4., got 4": (model, IMAGES, None, None, 4),
        r"in .0, 4., got -1": (model, IMAGES, None, None, [0, -1, 9]),
        r"each of the 3 images, got int64 .2.": (model, IMAGES, None, None, [0, 1]),
        r"one whole number .* got float64 ..": (model, IMAGES, None, None, 0.5),
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            grad_cam(*arguments)
        assert "\n" not in str(caught.value)
