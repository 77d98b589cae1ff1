"""What the self-distilling methods share."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.common.create import create_method
from tf_mskd.methods.common.self_taught import soft_cross_entropy

EXITS = reference.STUDENT_EXITS
METHODS = ("byot", "dbt", "eed", "tskd")


def expected(target, logits, temperature):
    p = reference.softmax(np.asarray(target) / temperature)
    return -np.sum(p * reference.log_softmax(np.asarray(logits) / temperature), -1)


def test_soft_cross_entropy_of_the_fixture():
    got = np.mean(soft_cross_entropy(EXITS["exit_4"], EXITS["exit_1"], 3.0))
    np.testing.assert_allclose(got, 1.55024545, 2e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0, 7.5])
def test_soft_cross_entropy_equals_its_formula(temperature):
    rng = np.random.default_rng(0)
    target, logits = 4 * rng.normal(size=(2, 6, 9))
    got = soft_cross_entropy(target, logits, temperature)
    assert got.dtype == "float32"
    np.testing.assert_allclose(got, expected(target, logits, temperature), 2e-5)


def test_soft_cross_entropy_at_equality_is_the_entropy_and_not_zero():
    z = EXITS["exit_2"]
    p = reference.softmax(z / 3)
    entropy = -np.sum(p * np.log(p), -1)
    np.testing.assert_allclose(soft_cross_entropy(z, z, 3.0), entropy, 2e-5)


def test_the_target_of_a_soft_cross_entropy_gets_no_gradient():
    target, logits = (tf.constant(EXITS[n], "float32") for n in ("exit_4", "exit_1"))
    with tf.GradientTape() as tape:
        tape.watch([target, logits])
        total = keras.ops.sum(soft_cross_entropy(target, logits, 3.0))
    to_target, to_logits = tape.gradient(total, [target, logits])
    assert to_target is None
    step = (reference.softmax(EXITS["exit_1"] / 3) - reference.softmax(target / 3)) / 3
    np.testing.assert_allclose(to_logits, step, 1e-4, 1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_student_of_one_exit_is_refused(name):
    message = f"{name}' lets exits .* has 1 .exit_4.: build it with exits='all'"
    with pytest.raises(UserError, match=message):
        create_method(name).output_pairs(["exit_4", "embedding_4"], ["exit_1"])


@pytest.mark.parametrize("name", ["byot", "eed", "tskd"])
def test_a_student_without_vectors_is_refused(name):
    exits = ["exit_1", "exit_2", "exit_3"]
    message = f"{name}' reads 'embedding_1' of the student, .*tf_mskd.create_model"
    with pytest.raises(UserError, match=message):
        create_method(name).output_pairs(exits, ["exit_1"])
