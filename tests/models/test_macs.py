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
