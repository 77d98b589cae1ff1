"""CC: both forms against known answers and the formulas."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.cc import CC, kernel_gap, neighbour_gap

STUDENT = reference.fill(0.5, [4, 6])
TEACHER = reference.fill(1.7, [4, 6])


def neighbour_formula(a, b):
    gap = np.abs(np.asarray(a, np.float64) - b)
    return np.mean([gap[i] @ gap[i + 1] for i in range(len(gap) - 1)])


def kernel_formula(a, b, g=0.4):
    def kernel(x):
        x = np.asarray(x, np.float64)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        terms = [(2 * g) ** p / math.factorial(p) * (x @ x.T) ** p for p in (0, 1, 2)]
        return np.exp(-2 * g) * sum(terms)

    return np.sum((kernel(a) - kernel(b)) ** 2) / len(a) ** 2


def cc(student, teacher, identity=False, **arguments):
    student, teacher = (np.asarray(x, np.float32) for x in (student, teacher))
    method = CC(**arguments)
    exits = {"exit_3": np.zeros((len(student), 5), np.float32)}
    inputs = ({**exits, "embedding_3": student}, {"embedding_4": teacher})
    labels = {"label": np.zeros(len(student), np.int32)}
    terms = method(*inputs, labels)
    if identity:
        for layer in (method.embed_student, method.embed_teacher):
            layer.kernel.assign(np.eye(*layer.kernel.shape))
        terms = method(*inputs, labels)
    assert set(terms) == {"ce/exit_3", "cc/embedding_3"}
    return float(terms["cc/embedding_3"]), method


@pytest.mark.parametrize(
    "form, expected, rtol",
    [("benchmark", 2.74390332, 2e-5), ("kernel", 0.00162358, 1e-4)],
)
def test_known_answers_with_the_embeddings_as_views(form, expected, rtol):
    got, _ = cc(STUDENT, TEACHER, identity=True, form=form, dim=6)
    np.testing.assert_allclose(got, expected, rtol)


def test_neighbours_by_hand():
    a = tf.constant([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    assert float(neighbour_gap(a, tf.zeros_like(a))) == 5.5
    assert float(neighbour_gap(3 * a, tf.zeros_like(a))) == 9 * 5.5
    assert float(neighbour_gap(a, a)) == 0
    assert float(neighbour_gap(a[:1], 0 * a[:1])) == 0


@pytest.mark.parametrize("form", ["benchmark", "kernel"])
def test_random_embeddings_match_the_formula(form):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(8, 16)), rng.normal(size=(8, 24))
    got, method = cc(student, teacher, form=form)
    student_x, teacher_x = (
        x @ layer.kernel.numpy().astype(np.float64) + layer.bias.numpy()
        for x, layer in (
            (student, method.embed_student),
            (teacher, method.embed_teacher),
        )
    )
    formula = kernel_formula if form == "kernel" else neighbour_formula
    np.testing.assert_allclose(got, formula(student_x, teacher_x), 1e-4)


def test_the_kernel_is_near_the_gaussian_and_blind_to_order():
    """The series of second order against exp(-g |u_i - u_j|^2), g = 0.4."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 3)).astype(np.float32)
    order = rng.permutation(6)
    moved = kernel_gap(tf.constant(a[order]), tf.constant(b[order]))
    value = float(kernel_gap(tf.constant(a), tf.constant(b)))
    np.testing.assert_allclose(moved, value, 1e-4)

    def gaussian(x):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        return np.exp(-0.4 * ((x[:, None] - x) ** 2).sum(-1))

    exact = np.mean((gaussian(a) - gaussian(b)) ** 2)
    np.testing.assert_allclose(value, exact, rtol=0.15)


def test_both_views_learn_and_start_within_one_over_the_root_of_the_width():
    _, method = cc(STUDENT, TEACHER)
    assert len(method.trainable_variables) == 4
    for layer in (method.embed_student, method.embed_teacher):
        assert layer.kernel.shape == (6, 128)
        largest = np.abs(layer.kernel.numpy()).max()
        assert 0.3 < largest <= 6**-0.5, largest


def test_a_batch_of_one_is_refused():
    with pytest.raises(UserError, match="'cc' compares examples .* batches of 2"):
        cc(STUDENT[:1], TEACHER[:1])
