"""VID: the Gaussian's surprise against known answers and the formula."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd.methods.vid import VID

STUDENT = reference.fill(0.3, [4, 4, 4, 3])
TEACHER = reference.fill(0.9, [4, 2, 2, 6])
KERNELS = [
    reference.fill(a, s) for a, s in ((0.1, [3, 6]), (0.2, [6, 6]), (0.4, [6, 6]))
]


def pooled(x, size):
    """Means over equal blocks, [B, H, W, C] to [B, size, size, C]."""
    b, h, w, c = x.shape
    return x.reshape(b, size, h // size, size, w // size, c).mean((2, 4))


def formula(student, teacher, kernels, rho):
    """mean_{h,w,c} [(mu - t)^2 / var + ln var] / 2 of each example."""
    first, second, third = kernels
    mean = np.maximum(np.maximum(student @ first, 0) @ second, 0) @ third
    variance = np.log1p(np.exp(rho)) + 1e-5
    surprise = 0.5 * ((mean - teacher) ** 2 / variance + np.log(variance))
    return surprise.mean((1, 2, 3))


def vid(student, teacher, kernels, rho=None, **arguments):
    """The term [B], and the method, with the kernels [in, out] given."""
    method = VID(**arguments)
    size = len(student)
    inputs = (
        {"exit_1": np.zeros((size, 5), np.float32), "feature_1": np.float32(student)},
        {"feature_2": np.float32(teacher)},
        {"label": np.zeros(size, np.int32)},
    )
    method(*inputs)
    for layer, kernel in zip(method.means["feature_1"], kernels, strict=True):
        layer.kernel.assign(kernel[None, None])
    if rho is not None:
        method.rho["feature_1"].assign(rho)
    terms = method(*inputs)
    assert set(terms) == {"ce/exit_1", "vid/feature_1"}
    return terms["vid/feature_1"].numpy(), method


def identities(width):
    return [np.eye(width)] * 3


def test_known_answer_with_the_student_pooled():
    value, _ = vid(STUDENT, TEACHER, KERNELS)
    np.testing.assert_allclose(value.mean(), 0.85572783, 2e-5)
    rho = np.full(6, 4.99322939)
    expected = formula(pooled(STUDENT, 2), TEACHER, KERNELS, rho)
    np.testing.assert_allclose(value, expected, 2e-5)


@pytest.mark.parametrize("gap, expected", [(0.0, 0.80471896), (2.0, 1.20471896)])
def test_a_constant_error_under_a_variance_of_five(gap, expected):
    maps = np.abs(STUDENT)
    value, method = vid(maps, maps + gap, identities(3))
    np.testing.assert_allclose(value, np.full(4, expected), 2e-5)
    np.testing.assert_allclose(method.rho["feature_1"], np.full(3, 4.99322939), 1e-6)


def test_random_maps_match_the_formula_with_the_teacher_pooled():
    rng = np.random.default_rng(0)
    student = rng.normal(size=(5, 2, 2, 4))
    teacher = rng.normal(size=(5, 4, 4, 6))
    kernels = [rng.normal(size=s) / 2 for s in ((4, 6), (6, 6), (6, 6))]
    rho = rng.normal(size=6)
    value, _ = vid(student, teacher, kernels, rho)
    expected = formula(student, pooled(teacher, 2), kernels, rho)
    np.testing.assert_allclose(value, expected, 1e-4)


def test_the_variance_stands_still_where_it_is_the_mean_square_error():
    maps = np.abs(STUDENT)
    _, method = vid(maps, maps + 1.5, identities(3), initial_variance=2.25)
    with tf.GradientTape() as tape:
        terms = method(
            {"exit_1": np.zeros((4, 5)), "feature_1": np.float32(maps)},
            {"feature_2": np.float32(maps + 1.5)},
            {"label": np.zeros(4, np.int32)},
        )
        total = tf.reduce_sum(terms["vid/feature_1"])
    gradient = tape.gradient(total, method.rho["feature_1"].value)
    np.testing.assert_allclose(gradient, np.zeros(3), atol=1e-5)


def test_the_term_is_negative_for_a_sure_and_right_guess():
    maps = np.abs(STUDENT)
    value, _ = vid(maps, maps, identities(3), rho=np.full(3, -50.0))
    np.testing.assert_allclose(value, np.full(4, 0.5 * np.log(1e-5)), 1e-4)


def test_every_stage_has_its_own_convolutions_and_variances():
    method = VID()
    method.build(
        {"feature_1": (None, 8, 8, 4), "feature_2": (None, 4, 4, 6)},
        {"feature_2": (None, 8, 8, 5), "feature_3": (None, 4, 4, 7)},
    )
    assert method.pairs == {"feature_1": ("feature_2",), "feature_2": ("feature_3",)}
    assert len(method.trainable_variables) == 8
    assert method.rho["feature_1"].shape == (5,)
    shapes = [layer.kernel.shape[2:] for layer in method.means["feature_2"]]
    assert shapes == [(6, 7), (7, 7), (7, 7)]
