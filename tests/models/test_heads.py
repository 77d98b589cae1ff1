"""The five kinds of head: sizes against the specification, and their shape."""

import keras
import numpy as np
import pytest

from tf_mskd.models import create_model
from tf_mskd.models.heads import HEADS


def head_parameters(name, head, **options):
    """Trainable parameters of each early exit without its dense layer, in units."""
    model = create_model(name, 100, exits=[1, 2, 3], exit_head=head, **options)
    counts = []
    for k in (1, 2, 3):
        layers = [n for n in model.layers if n.name.startswith(f"exit_{k}_")]
        variables = [v for layer in layers for v in layer.trainable_variables]
        counts.append(sum(int(np.prod(v.shape)) for v in variables))
    return counts


@pytest.mark.parametrize(
    "name, head, millions, digits",
    [
        ("resnet18", "dense", [1.55, 1.48, 1.18], 2),
        ("resnet18", "separable", [0.27, 0.25, 0.20], 2),
        ("vgg8", "dense", [1.55, 1.48, 1.18], 2),
        ("resnet50", "dense", [24.8, 23.6, 18.9], 1),
        ("resnet50", "separable", [4.2, 4.0, 3.2], 1),
    ],
)
def test_sizes_match_the_specification(name, head, millions, digits):
    counts = head_parameters(name, head)
    assert [round(count / 1e6, digits) for count in counts] == millions


def test_dense_head_worked_by_hand():
    step = {j: 9 * a * b + 2 * b for j, a, b in [(2, 64, 128), (3, 128, 256)]}
    step[4] = 9 * 256 * 512 + 2 * 512
    expected = [step[2] + step[3] + step[4], step[3] + step[4], step[4]]
    assert head_parameters("resnet10", "dense") == expected


def test_separable_head_worked_by_hand():
    def block(a, b):
        return 9 * a + a * a + 2 * a + 9 * a + a * b + 2 * b

    steps = [block(64, 128), block(128, 256), block(256, 512)]
    expected = [sum(steps), sum(steps[1:]), steps[2]]
    assert head_parameters("resnet10", "separable") == expected


def test_bottleneck_head_worked_by_hand():
    expected = []
    for channels, scale in [(64, 8), (128, 4), (256, 2)]:
        first = channels * 128 + 2 * 128
        middle = scale * scale * 128 * 128 + 2 * 128
        expected.append(first + middle + 128 * 512 + 2 * 512)
    assert head_parameters("resnet10", "bottleneck") == expected


def test_stage_head_copies_the_remaining_stages():
    # BasicBlock with projection: 9ab + 9bb + ab and three batch norms of 2b.
    steps = [
        9 * a * b + 9 * b * b + a * b + 6 * b
        for a, b in [(64, 128), (128, 256), (256, 512)]
    ]
    expected = [sum(steps), sum(steps[1:]), steps[2]]
    assert head_parameters("resnet10", "stage") == expected


def test_linear_head_is_pooling_and_dense_only():
    assert head_parameters("resnet10", "linear") == [0, 0, 0]
    model = create_model("resnet10", 10, exits=[1], exit_head="linear", width=0.1)
    assert model.get_layer("exit_1").kernel.shape == (6, 10)


def test_attention_worked_by_hand():
    plain = head_parameters("resnet10", "linear")
    masked = head_parameters("resnet10", "linear", attention=True)
    extra = [b - a for a, b in zip(plain, masked, strict=True)]
    assert extra == [9 * c + c * c + 2 * c for c in (64, 128, 256)]


@pytest.mark.parametrize("side", [16, 14])
def test_attention_multiplies_the_map_by_a_mask(side):
    model = create_model(
        "resnet10",
        5,
        exits=[1],
        attention=True,
        exit_head="linear",
        width=0.1,
        input_shape=(side, side, 3),
    )
    names = ["feature_1", "exit_1_attention_mask", "exit_1_attention"]
    parts = keras.Model(model.input, [model.get_layer(n).output for n in names])
    image = np.random.default_rng(0).integers(0, 256, (2, side, side, 3))
    feature, mask, product = (np.asarray(part) for part in parts(image))
    assert mask.shape == feature.shape == product.shape
    assert mask.min() >= 0.5 and mask.max() < 1
    np.testing.assert_allclose(product, feature * mask, rtol=1e-5)


def test_a_plain_call_moves_no_statistics():
    model = create_model(
        "wrn_10_1", 5, exits="all", attention=True, width=0.25, input_shape=(14, 14, 3)
    )
    before = [np.array(v) for v in model.non_trainable_variables]
    model(np.random.default_rng(0).integers(0, 256, (2, 14, 14, 3)))
    for old, new in zip(before, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.run
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["resnet10", "vgg8", "wrn_10_1"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 3), (64, 64, 3)])
def test_every_head_on_every_network(head, name, shape):
    model = create_model(
        name, 5, exits=[1, 2], exit_head=head, width=1 / 32, input_shape=shape
    )
    for output in ("exit_1", "exit_2"):
        assert model.output[output].shape == (None, 5)


@pytest.mark.parametrize("head", ["dense", "separable", "stage"])
def test_heads_end_at_the_size_of_the_last_map(head):
    model = create_model("resnet10", 5, exits="all", exit_head=head, width=1 / 16)
    for k in (1, 2, 3):
        source = model.get_layer(f"embedding_{k}").input
        assert source.shape == (None, 4, 4, 32)


def test_head_keeps_the_size_where_the_backbone_does():
    model = create_model("vgg8", 5, exits=[3], vgg_taps=(2, 3, 4, 5), width=1 / 16)
    assert model.get_layer("exit_3_conv_4").strides == (1, 1)
    model = create_model("vgg8", 5, exits=[3], width=1 / 16)
    assert model.get_layer("exit_3_conv_4").strides == (2, 2)


def test_wrn_heads_start_with_batch_norm_and_relu():
    for head in HEADS:
        model = create_model("wrn_10_1", 5, exits="all", exit_head=head, width=0.5)
        names = [layer.name for layer in model.layers]
        for k in (1, 2):
            assert f"exit_{k}_relu" in names
            # A copied stage has the batch norm as its own first layer.
            first = f"exit_{k}_preact_{k}" if head == "stage" else f"exit_{k}_bn"
            feature = model.get_layer(f"feature_{k}").output
            assert model.get_layer(first).input is feature
