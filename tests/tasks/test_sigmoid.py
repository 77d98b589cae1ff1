"""Losses of yes-or-no answers: by hand, against float64, their limits and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd.tasks.sigmoid import agreement, bernoulli_kl, binary_cross_entropy
from tf_mskd.tasks.softmax import cross_entropy, softened_kl

LABELS = (reference.fill(3, (4, 5)) > 0).astype("float64")
STUDENT, TEACHER = 3 * reference.fill(0, (4, 5)), 3 * reference.fill(7, (4, 5))


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, "float64")))


def reference_bce(y, z):
    p = sigmoid(z)
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(-1)


def reference_kl(t, z, temperature):
    p, q = sigmoid(t / temperature), sigmoid(z / temperature)
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return temperature**2 * kl.mean(-1)


def test_known_answers():
    np.testing.assert_allclose(
        binary_cross_entropy([[1.0, 0.0], [0.5, 1.0]], [[0.0, 0.0], [0.0, np.log(3)]]),
        [np.log(2), (np.log(2) + np.log(4 / 3)) / 2],
        1e-6,
    )
    kl = bernoulli_kl([[np.log(3), 0.0]], [[0.0, 0.0]], 1.0)
    expected = (0.75 * np.log(1.5) + 0.25 * np.log(0.5)) / 2
    np.testing.assert_allclose(kl, [expected], 1e-6)
    got = agreement([[1, 0, 0.4]], [[0.1, 0.2, -3.0]])
    np.testing.assert_allclose(got, [2 / 3], 1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0, 4.0])
def test_against_float64(temperature):
    got = binary_cross_entropy(LABELS, STUDENT)
    np.testing.assert_allclose(got, reference_bce(LABELS, STUDENT), 1e-5)
    got = bernoulli_kl(TEACHER, STUDENT, temperature)
    np.testing.assert_allclose(got, reference_kl(TEACHER, STUDENT, temperature), 1e-5)


def test_keras_has_the_same_cross_entropy():
    loss = keras.losses.BinaryCrossentropy(from_logits=True, reduction="none")
    np.testing.assert_allclose(
        binary_cross_entropy(LABELS, STUDENT), loss(LABELS, STUDENT), 1e-5
    )


def test_one_question_is_two_classes():
    z, t = STUDENT[:, :1], TEACHER[:, :1]
    yes = (reference.fill(3, (4,)) > 0).astype("int32")
    two = [np.concatenate([np.zeros_like(x), x], axis=1) for x in (t, z)]
    one = binary_cross_entropy(yes[:, None], z)
    np.testing.assert_allclose(one, cross_entropy(yes, two[1]), 1e-5)
    np.testing.assert_allclose(
        bernoulli_kl(t, z, 4.0), softened_kl(*two, 4.0), 1e-4, 2e-6
    )


def test_gradients_are_those_of_the_formulas_and_stay_finite():
    z, t = (tf.constant(x, "float32") for x in (STUDENT, TEACHER))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([z, t])
        bce = tf.reduce_sum(binary_cross_entropy(LABELS, z))
        kl = tf.reduce_sum(bernoulli_kl(t, z, 4.0))
    expected = (sigmoid(STUDENT) - LABELS) / 5
    np.testing.assert_allclose(tape.gradient(bce, z), expected, 1e-4, 1e-6)
    expected = 4 * (sigmoid(STUDENT / 4) - sigmoid(TEACHER / 4)) / 5
    np.testing.assert_allclose(tape.gradient(kl, z), expected, 1e-4, 1e-6)
    assert tape.gradient(kl, t) is None
    far = tf.constant([[90.0, -90.0]])
    with tf.GradientTape() as tape:
        tape.watch(far)
        loss = binary_cross_entropy([[0.0, 1.0]], far) + bernoulli_kl(-far, far, 1.0)
    assert np.isfinite(loss.numpy()).all()
    assert np.isfinite(tape.gradient(loss, far).numpy()).all()
