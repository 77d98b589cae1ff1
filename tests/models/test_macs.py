"""Multiply-accumulates against counts worked out in plain arithmetic."""

import keras
import pytest

from tf_mskd.models import count_macs, create_model
from tf_mskd.utils.errors import UserError


def test_vgg8_by_hand():
    # side of the map, channels in, channels out
    plan = [(32, 3, 64), (16, 64, 128), (8, 128, 256), (4, 256, 512), (4, 512, 512)]
    convolutions = sum(side * side * 9 * a * b for side, a, b in plan)
    assert count_macs(create_model("vgg8", 100)) == convolutions + 512 * 100


def test_resnet18_by_hand():
    total = 32 * 32 * 9 * 3 * 64
    for side, a, b in [(32, 64, 64), (16, 64, 128), (8, 128, 256), (4, 256, 512)]:
        total += side * side * 9 * (a * b + 3 * b * b)
        if a != b:
            total += side * side * a * b
    assert count_macs(create_model("resnet18", 100)) == total + 512 * 100


@pytest.mark.parametrize(
    "name, published",  # of torchvision's tables, in units of 1e9
    [("resnet18", 1.814), ("resnet34", 3.664), ("resnet50", 4.089)],
)
def test_resnets_with_the_imagenet_stem_by_hand(name, published):
    is_deep = name == "resnet50"
    depths = (2, 2, 2, 2) if name == "resnet18" else (3, 4, 6, 3)
    total, inner = 112 * 112 * 49 * 3 * 64, 64
    for stage, depth in enumerate(depths):
        side, c = 56 // 2**stage, 64 * 2**stage
        for index in range(depth):
            before = side * (2 if stage and index == 0 else 1)
            out = 4 * c if is_deep else c
            if is_deep:  # the stride on the 3x3 convolution
                total += before**2 * inner * c + side**2 * (9 * c * c + c * out)
            else:
                total += side**2 * 9 * (inner * c + c * c)
            if inner != out:
                total += side**2 * inner * out
            inner = out
    shape = (224, 224, 3)
    model = create_model(name, 1000, stem="imagenet", input_shape=shape)
    assert count_macs(model) == total + inner * 1000
    assert round(count_macs(model) / 1e9, 3) == published


def test_outputs_share_the_backbone():
    model = create_model("resnet10", 10, exits=[1, 2], exit_head="linear")
    stem_and_1 = 32 * 32 * 9 * (3 * 64 + 2 * 64 * 64)
    stage_2 = 16 * 16 * (9 * (64 * 128 + 128 * 128) + 64 * 128)
    assert count_macs(model, "exit_1") == stem_and_1 + 64 * 10
    assert count_macs(model, ["exit_2"]) == stem_and_1 + stage_2 + 128 * 10
    assert count_macs(model) == stem_and_1 + stage_2 + 64 * 10 + 128 * 10


@pytest.mark.parametrize(
    "layer, macs",
    [
        (keras.layers.Conv2D(6, 3, padding="same"), 64 * 9 * 4 * 6),
        (keras.layers.Conv2D(6, 3, 2, padding="same"), 16 * 9 * 4 * 6),
        (keras.layers.Conv2D(6, 3, padding="same", groups=2), 64 * 9 * 2 * 6),
        (keras.layers.DepthwiseConv2D(3, padding="same"), 64 * 9 * 4),
        (
            keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
            64 * 9 * 8,
        ),
        (
            keras.layers.SeparableConv2D(6, 3, 2, padding="same"),
            16 * 9 * 4 + 16 * 4 * 6,
        ),
        (keras.layers.Conv2DTranspose(6, 4, 2, padding="same"), 64 * 16 * 4 * 6),
        (keras.layers.Dense(6), 64 * 4 * 6),
        (keras.layers.MaxPooling2D(), 0),
    ],
)
def test_each_layer_by_hand(layer, macs):
    image = keras.Input((8, 8, 4))
    assert count_macs(keras.Model(image, layer(image))) == macs


@pytest.mark.parametrize(
    "layer, shape, macs",
    [
        (keras.layers.Conv1D(6, 3, padding="same"), (8, 4), 8 * 3 * 4 * 6),
        (keras.layers.Conv1D(6, 3, padding="same", groups=2), (8, 4), 8 * 3 * 2 * 6),
        (keras.layers.DepthwiseConv1D(3, padding="same"), (8, 4), 8 * 3 * 4),
        (
            keras.layers.SeparableConv1D(6, 3, padding="same"),
            (8, 4),
            8 * 3 * 4 + 8 * 4 * 6,
        ),
        (keras.layers.Conv1DTranspose(6, 3), (8, 4), 8 * 3 * 4 * 6),
        (keras.layers.Conv3D(6, 3, padding="same"), (4, 4, 4, 2), 64 * 27 * 2 * 6),
        (keras.layers.Conv3DTranspose(6, 3), (4, 4, 4, 2), 64 * 27 * 2 * 6),
        (keras.layers.EinsumDense("abc,cd->abd", (7, 6)), (7, 5), 7 * 5 * 6),
        (keras.layers.EinsumDense("abc,cde->abde", (7, 2, 3)), (7, 5), 7 * 5 * 2 * 3),
        (keras.layers.EinsumDense("abcd,cde->abe", (7, 6)), (7, 2, 3), 7 * 2 * 3 * 6),
        (keras.layers.EinsumDense("...x,xy->...y", 6), (7, 5), 7 * 5 * 6),
        (keras.layers.LSTM(6), (7, 5), 7 * 4 * 6 * (5 + 6)),
        (keras.layers.GRU(6, return_sequences=True), (7, 5), 7 * 3 * 6 * (5 + 6)),
        (keras.layers.SimpleRNN(6), (7, 5), 7 * 6 * (5 + 6)),
        (
            keras.layers.Bidirectional(keras.layers.LSTM(6)),
            (7, 5),
            2 * 7 * 4 * 6 * (5 + 6),
        ),
        (
            keras.layers.TimeDistributed(keras.layers.Conv2D(6, 1)),
            (3, 4, 4, 2),
            3 * 16 * 2 * 6,
        ),
        (keras.layers.Embedding(9, 4), (7,), 0),
        (keras.layers.LayerNormalization(), (7, 5), 0),
        (keras.layers.Rescaling(0.5), (7, 5), 0),
    ],
)
def test_layers_of_other_ranks_by_hand(layer, shape, macs):
    inputs = keras.Input(shape)
    assert count_macs(keras.Model(inputs, layer(inputs))) == macs


def test_attention_by_hand():
    query, value = keras.Input((7, 5)), keras.Input((4, 6))
    layer = keras.layers.MultiHeadAttention(2, 3, value_dim=8)
    by_hand = 7 * 5 * 2 * 3 + 4 * 6 * 2 * 3 + 4 * 6 * 2 * 8  # query, key, value
    by_hand += 2 * 7 * 4 * 3 + 2 * 7 * 4 * 8 + 7 * 2 * 8 * 5  # scores, sums, output
    assert count_macs(keras.Model([query, value], layer(query, value))) == by_hand
    layer = keras.layers.GroupQueryAttention(3, 4, 2)
    value = keras.Input((4, 5))
    by_hand = 7 * 5 * 4 * 3 + 2 * 4 * 5 * 2 * 3 + 2 * 4 * 7 * 4 * 3 + 7 * 4 * 3 * 5
    assert count_macs(keras.Model([query, value], layer(query, value))) == by_hand


def test_a_layer_of_ones_own_with_weights_is_named():
    class Gate(keras.layers.Layer):
        def __init__(self, shape, name):
            super().__init__(name=name)
            self.gate = self.add_weight(shape=shape)

        def call(self, x):
            return x @ self.gate if self.gate.shape == (2, 2) else x * self.gate

    image = keras.Input((4, 4, 2))
    with pytest.raises(UserError, match="does not know 'mine', a Gate with weights"):
        count_macs(keras.Model(image, Gate((2, 2), "mine")(image)))
    for shape in ((2,), (1, 1, 2)):
        assert count_macs(keras.Model(image, Gate(shape, "scale")(image))) == 0


def test_shared_layers_count_per_call_and_nested_models_inside():
    image = keras.Input((8, 8, 4))
    shared = keras.layers.Conv2D(4, 1)
    assert count_macs(keras.Model(image, shared(shared(image)))) == 2 * 64 * 16
    part = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(4, 1)])
    assert count_macs(keras.Model(image, part(part(image)))) == 2 * 64 * 16


def test_what_cannot_be_counted_is_refused():
    model = create_model("vgg8", 5, width=1 / 16)
    with pytest.raises(UserError, match="Unknown output 'exit_1'.*exit_4"):
        count_macs(model, "exit_1")
    image = keras.Input((None, None, 3))
    any_size = keras.Model(image, keras.layers.Conv2D(4, 1, name="conv")(image))
    with pytest.raises(UserError, match="fixed image size, but layer 'conv' gets"):
        count_macs(any_size)
    fixed = keras.Input((8, 8, 3))
    with pytest.raises(UserError, match=r"built for the size.*\(8, 8, 3\), got \(None"):
        count_macs(keras.Model(fixed, any_size(fixed)))

    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(UserError, match="cannot look into 'own'"):
        count_macs(keras.Model(fixed, Own(name="own")(fixed)))
