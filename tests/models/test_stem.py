"""The stem of ImageNet: its layers, and maps and heads behind it."""

import numpy as np
import pytest

from tests.models import numpy_networks as reference
from tf_mskd.models import blocks, create_model

FEATURES = [f"feature_{k}" for k in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        ((224, 224), [(56, 56), (28, 28), (14, 14), (7, 7)]),
        ((57, 98), [(15, 25), (8, 13), (4, 7), (2, 4)]),
        ((33, 31), [(9, 8), (5, 4), (3, 2), (2, 1)]),
    ],
)
@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_stage_1_has_a_quarter_of_the_sides(name, shape, sides):
    model = create_model(
        name,
        5,
        exits="all",
        features=FEATURES,
        width=1 / 16,
        stem="imagenet",
        input_shape=(*shape, 3),
    )
    assert [model.output[f].shape[1:3] for f in FEATURES] == sides
    outputs = model(np.random.default_rng(0).integers(0, 256, (1, *shape, 3)))
    assert [outputs[f].shape[1:3] for f in FEATURES] == sides
    for head in ("separable", "bottleneck", "stage", "linear"):
        create_model(
            name,
            5,
            exits="all",
            exit_head=head,
            attention=True,
            width=1 / 16,
            stem="imagenet",
            input_shape=(*shape, 3),
        )


def test_layers_of_the_stem():
    model = create_model("resnet18", 5, stem="imagenet", input_shape=(64, 64, 3))
    names = [layer.name for layer in model.layers]
    assert names[2:8] == [
        *("stem_conv_pad", "stem_conv", "stem_bn", "stem_relu"),
        *("stem_pool_pad", "stem_pool"),
    ]
    conv = model.get_layer("stem_conv")
    assert (conv.kernel_size, conv.strides, conv.padding) == ((7, 7), (2, 2), "valid")
    assert model.get_layer("stem_conv_pad").padding == ((3, 3), (3, 3))
    small = create_model("resnet18", 5, stem="small", input_shape=(64, 64, 3))
    assert small.get_layer("stem_conv").kernel_size == (3, 3)
    assert "stem_pool" not in [layer.name for layer in small.layers]


@pytest.mark.parametrize("side", [8, 7])
def test_max_pooling_of_maps_after_a_relu(side):
    x = np.random.default_rng(0).normal(size=(2, side, side, 3)).clip(0)
    pooled = np.asarray(blocks.max_pool(x.astype("float32"), "pool"))
    wanted = reference.overlapping_max_pool(x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(pooled, wanted.transpose(0, 2, 3, 1), rtol=1e-6)


def test_dense_tasks_answer_at_the_size_of_the_image():
    model = create_model(
        "resnet10",
        3,
        exits="all",
        width=1 / 16,
        stem="imagenet",
        task="segmentation",
        input_shape=(64, 48, 3),
    )
    for k in (1, 2, 3, 4):
        assert model.output[f"exit_{k}"].shape == (None, 64, 48, 3)
