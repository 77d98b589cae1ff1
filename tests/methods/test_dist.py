"""DIST: correlations of softened outputs, in rows and in columns."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.common.create import create_method


def relation(a, b):
    """1 - Pearson's correlation of two vectors, with the released code's 1e-8."""
    a, b = a - a.mean(), b - b.mean()
    return 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-8)


def formula(teacher, student, temperature):
    """The means of inter and intra."""
    p, q = (reference.softmax(z / temperature) for z in (teacher, student))
    inter = np.mean([relation(a, b) for a, b in zip(q, p, strict=True)])
    intra = np.mean([relation(a, b) for a, b in zip(q.T, p.T, strict=True)])
    return temperature**2 * np.array([inter, intra])


def parts(teacher, student, **arguments):
    """inter [B] and intra (scalar) of one exit."""
    method = create_method("dist", **arguments)
    label = np.zeros(len(student), np.int32)
    terms = method({"exit_1": student}, {"exit_1": teacher}, {"label": label})
    return [np.asarray(terms[f"dist_{part}/exit_1"]) for part in ("inter", "intra")]


def test_known_answers():
    inter, intra = parts(reference.TEACHER, reference.STUDENT, temperature=1.0)
    assert inter.shape == (4,) and intra.shape == ()
    np.testing.assert_allclose(inter.mean(), 0.42600670, 2e-5)
    np.testing.assert_allclose(intra, 0.37130617, 2e-5)
    inter, intra = parts(reference.TEACHER, reference.STUDENT)
    np.testing.assert_allclose(inter.mean() + intra, 9.39563334, 1e-4)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_terms_are_the_formula_on_random_logits(temperature):
    teacher, student = 3 * np.random.default_rng(0).normal(size=(2, 6, 7))
    inter, intra = parts(teacher, student, temperature=temperature)
    expected = formula(teacher, student, temperature)
    np.testing.assert_allclose([inter.mean(), intra], expected, 1e-4)


def test_inter_is_zero_for_a_student_that_is_merely_less_sure():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    student = np.log(probabilities / 2 + 1 / 6)
    inter, _ = parts(np.log(probabilities), student, temperature=1.0)
    np.testing.assert_allclose(inter, 0, atol=1e-6)


def test_opposed_outputs_reach_the_bound():
    probabilities = np.array([[0.6, 0.4], [0.3, 0.7]])
    teacher, student = np.log(probabilities), np.log(probabilities[:, ::-1])
    inter, intra = parts(teacher, student, temperature=1.0)
    np.testing.assert_allclose(inter, 2, 1e-5)
    np.testing.assert_allclose(intra, 2, 1e-5)


def test_a_constant_student_is_uncorrelated_and_has_a_finite_gradient():
    teacher = reference.TEACHER.astype("float32")
    student = tf.zeros(teacher.shape)
    method = create_method("dist", temperature=1.0)
    label = np.zeros(4, np.int32)
    with tf.GradientTape() as tape:
        tape.watch(student)
        terms = method({"exit_1": student}, {"exit_1": teacher}, {"label": label})
        loss = tf.reduce_mean(terms["dist_inter/exit_1"]) + terms["dist_intra/exit_1"]
    np.testing.assert_allclose(loss, 2, 1e-6)
    assert np.isfinite(tape.gradient(loss, student)).all()


def test_gradients_are_those_of_the_formula():
    teacher, student = 2 * np.random.default_rng(2).normal(size=(2, 3, 4))
    method = create_method("dist", temperature=2.0)
    label = np.zeros(3, np.int32)
    z = tf.constant(student, "float32")
    with tf.GradientTape() as tape:
        tape.watch(z)
        terms = method({"exit_1": z}, {"exit_1": teacher}, {"label": label})
        loss = tf.reduce_mean(terms["dist_inter/exit_1"]) + terms["dist_intra/exit_1"]
    expected = reference.numeric_gradient(
        lambda z: formula(teacher, z, 2.0).sum(), student
    )
    np.testing.assert_allclose(tape.gradient(loss, z), expected, 1e-3, 1e-4)


def test_every_exit_learns_from_the_teachers_last():
    method = create_method("dist")
    pairs = method.output_pairs(["exit_1", "exit_2"], ["exit_1", "exit_4"])
    assert pairs == {"exit_1": ("exit_4",), "exit_2": ("exit_4",)}


def test_refuses_what_does_not_fit():
    message = "'dist' compares the examples .* got batches of one: raise --batch_size"
    with pytest.raises(UserError, match=message):
        parts(np.ones((1, 3)), np.ones((1, 3)))
