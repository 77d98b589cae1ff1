"""CCD: weights of the augmented view, row layout and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.ccd import CCD

LABEL = np.array([0, 0, 2, 2])


def expected_loss(student, teacher, label, temperature):
    """CE over all rows + T^2 / 2 * (mean KL clean + mean (1 + c) KL augmented)."""
    clean, other = teacher[::2], teacher[1::2]
    lengths = np.linalg.norm(clean, axis=1) * np.linalg.norm(other, axis=1)
    c = np.sum(clean * other, axis=1) / lengths
    kl = reference.softened_kl(teacher, student, temperature)
    soft = 0.5 * (kl[::2].mean() + np.mean((1 + c) * kl[1::2]))
    return c, reference.cross_entropy(label, student).mean() + soft


def total(terms):
    return sum(float(np.mean(value)) for value in terms.values())


def test_the_fixture():
    student, teacher = {"exit_1": reference.STUDENT}, {"exit_1": reference.TEACHER}
    method = CCD()
    terms = method(student, teacher, {"label": LABEL})
    np.testing.assert_allclose(total(terms), 2.79406526, 2e-5)
    weights = method.row_weights(tf.constant(reference.TEACHER, "float32")).numpy()
    assert weights[::2].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(weights[1::2] - 1, [-0.94487523, -0.92720295], 2e-5)
    assert method.default_weights == {"ce": 1.0, "ccd": 1.0}


def test_terms_equal_the_reference_at_every_exit():
    rng = np.random.default_rng(0)
    student = {f"exit_{k}": rng.normal(size=(12, 5)) for k in (1, 2)}
    teacher = {f"exit_{k}": 2 * rng.normal(size=(12, 5)) for k in (1, 4)}
    label = rng.integers(0, 5, 6).repeat(2)
    terms = CCD(temperature=2.5)(student, teacher, {"label": label})
    for name, logits in student.items():
        here = {n: v for n, v in terms.items() if n.endswith(name)}
        assert {v.shape for v in here.values()} == {(12,)}
        _, expected = expected_loss(logits, teacher["exit_4"], label, 2.5)
        np.testing.assert_allclose(total(here), expected, 1e-5, err_msg=name)


def test_weights_go_from_0_to_2():
    row = np.array([1.0, -2.0, 0.5])
    pairs = np.stack([row, row, row, -row, row, 7 * row, row, np.zeros(3)])
    weights = CCD().row_weights(tf.constant(pairs, "float32")).numpy()
    np.testing.assert_allclose(weights, [1, 2, 1, 0, 1, 2, 1, 1], atol=1e-6)


def test_rows_alternate_between_clean_and_augmented(digits):
    images, second = digits[0][:5], digits[0][5:10]
    targets = {"label": digits[1][:5], "second_view": tf.constant(second)}
    got, targets = CCD().augment(tf.constant(images), targets, None, None)
    np.testing.assert_array_equal(got[::2], images)
    np.testing.assert_array_equal(got[1::2], second)
    np.testing.assert_array_equal(targets["label"], digits[1][:5].repeat(2))
    assert CCD.rows_per_image == 2 and "second_view" in CCD.target_keys
    images = tf.cast(images, "float32")
    floats, _ = CCD().augment(images, {"second_view": second}, None, None)
    assert floats.dtype == "float32"
    np.testing.assert_array_equal(floats, tf.cast(got, "float32"))


def test_the_weight_carries_no_gradient_to_the_teacher():
    teacher = tf.constant(reference.TEACHER, "float32")
    with tf.GradientTape() as tape:
        tape.watch(teacher)
        terms = CCD()(
            {"exit_1": tf.constant(reference.STUDENT, "float32")},
            {"exit_1": teacher},
            {"label": LABEL},
        )
        loss = tf.reduce_sum(terms["ccd/exit_1"])
    assert tape.gradient(loss, teacher) is None


def test_a_teacher_without_exits_is_refused():
    with pytest.raises(UserError, match="exit_k of the teacher, which makes only feat"):
        CCD().output_pairs(["exit_1"], ["feature_1"])
