"""The regressor: which convolution for which sizes, and its arithmetic."""

import numpy as np
import pytest

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.common.regressor import Regressor


def make(student_size, teacher_size, channels=(3, 6), **arguments):
    sizes = student_size, teacher_size
    shapes = [(None, *size, c) for size, c in zip(sizes, channels, strict=True)]
    return Regressor(*shapes, name="regress_feature_2", **arguments)


@pytest.mark.parametrize(
    "student, teacher, kind, kernel, strides",
    [
        ((8, 8), (4, 4), "Conv2D", (3, 3), (2, 2)),
        ((2, 2), (1, 1), "Conv2D", (3, 3), (2, 2)),
        ((4, 4), (8, 8), "Conv2DTranspose", (4, 4), (2, 2)),
        ((4, 4), (4, 4), "Conv2D", (1, 1), (1, 1)),
        ((7, 6), (5, 5), "Conv2D", (3, 2), (1, 1)),
        ((8, 8), (2, 2), "Conv2D", (7, 7), (1, 1)),
    ],
)
def test_the_sizes_decide_the_convolution(student, teacher, kind, kernel, strides):
    layer = make(student, teacher)
    assert type(layer.conv).__name__ == kind
    assert (layer.conv.kernel_size, layer.conv.strides) == (kernel, strides)
    assert layer.conv.use_bias
    made = layer(np.ones((2, *student, 3), np.float32))
    assert made.shape == (2, *teacher, 6)
    assert len(layer.trainable_variables) == 4


def normalised(x, relu):
    """Batch norm with the statistics of the batch, gamma 1, beta 0."""
    x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    return np.maximum(x, 0) if relu else x


@pytest.mark.parametrize("relu", [True, False])
def test_same_sizes_are_a_matrix_product_and_batch_norm(relu):
    x = reference.fill(0.3, [4, 4, 4, 3])
    layer = make((4, 4), (4, 4), relu=relu)
    expected = normalised(x @ layer.conv.kernel.numpy()[0, 0].astype(float), relu)
    np.testing.assert_allclose(layer(np.float32(x)), expected, 2e-4, 1e-5)


def test_the_convolution_of_stride_2_is_padded_on_all_sides():
    x = reference.fill(0.3, [2, 4, 4, 3])
    layer = make((4, 4), (2, 2), relu=False)
    kernel = layer.conv.kernel.numpy().astype(float)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    made = np.zeros((2, 2, 2, 6))
    for i, j in np.ndindex(2, 2):
        patch = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        made[:, i, j] = np.einsum("bhwc,hwco->bo", patch, kernel)
    np.testing.assert_allclose(
        layer(np.float32(x)), normalised(made, False), 2e-4, 1e-5
    )


def test_statistics_are_the_batchs_and_move_by_a_tenth():
    x = reference.fill(0.3, [4, 4, 4, 3]).astype(np.float32)
    layer = make((4, 4), (4, 4), channels=(3, 3))
    layer.conv.kernel.assign(np.eye(3)[None, None])
    layer(x)
    np.testing.assert_allclose(
        layer.norm.moving_mean, 0.1 * x.mean((0, 1, 2)), rtol=1e-4, atol=1e-6
    )
    before = layer.norm.moving_mean.numpy()
    layer(x, training=False)
    np.testing.assert_array_equal(layer.norm.moving_mean, before)


@pytest.mark.parametrize("teacher_size", [(12, 12), (3, 3), (8, 4)])
def test_refuses_a_student_map_that_is_smaller_and_not_half(teacher_size):
    student_size = (2, 2) if teacher_size == (3, 3) else (4, 4)
    with pytest.raises(UserError, match="'regress_feature_2' maps no student map"):
        make(student_size, teacher_size)


def test_config_round_trip():
    layer = make((8, 8), (4, 4), relu=False)
    again = Regressor.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.conv.kernel.shape == (3, 3, 3, 6) and not again.relu
