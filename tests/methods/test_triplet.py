"""Triplet-KD: anchor, positive and a partner of another class."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.reference import fill
from tf_mskd import SGD, Distiller, UserError
from tf_mskd.methods.triplet import Triplet

NEGATIVE = 2 * fill(3.3, [4, 5])


def interleaved(even, odd):
    return np.stack([even, odd], 1).reshape(-1, *np.shape(even)[1:]).astype("f4")


def doubled(labels):
    return np.repeat(np.asarray(labels, np.int32), 2)


def terms_of(method, student, teacher, labels):
    terms = method(student, teacher, {"label": doubled(labels)})
    return {name: np.array(term) for name, term in terms.items()}


def fixture(method):
    student = {"exit_4": interleaved(reference.STUDENT, NEGATIVE)}
    teacher = {"exit_4": interleaved(reference.TEACHER, 9 * NEGATIVE)}
    return terms_of(method, student, teacher, reference.LABELS)


def distance(p, q):
    return np.sqrt(np.sum((p - q + 1e-6) ** 2, -1))


def test_terms_of_the_fixture():
    terms = fixture(Triplet())
    known = {"triplet": 3.75156985, "kd": 0.37810951, "ce": 2.13784098}
    for kind, value in known.items():
        got = terms[f"{kind}/exit_4"].mean()
        np.testing.assert_allclose(got, value, 2e-5, err_msg=f"triplet {kind}")
    weights = Triplet().default_weights
    total = sum(weights[n.split("/")[0]] * t.mean() for n, t in terms.items())
    np.testing.assert_allclose(total, 10.01909019, 2e-5)


@pytest.mark.parametrize("margin", [0.0, 3.0, 20.0])
def test_every_exit_is_taught_by_the_formula(margin):
    rng = np.random.default_rng(6)
    positive, negative = 3 * rng.normal(size=(2, 3, 8, 7))
    anchor, labels = 3 * rng.normal(size=(8, 7)), rng.integers(0, 7, 8)
    student = {
        f"exit_{k}": interleaved(positive[k - 1], negative[k - 1]) for k in (1, 2, 3)
    }
    teacher = {"exit_2": interleaved(anchor, np.full((8, 7), 1e3))}
    terms = terms_of(Triplet(margin, 2.0), student, teacher, labels)
    assert len(terms) == 9
    for k in (1, 2, 3):
        near, far = positive[k - 1], negative[k - 1]
        gap = distance(anchor, near) - distance(anchor, far) + margin
        known = {
            "triplet": np.maximum(gap, 0),
            "kd": reference.softened_kl(anchor, near, 2.0),
            "ce": reference.cross_entropy(labels, near),
        }
        for kind, value in known.items():
            name = f"{kind}/exit_{k}"
            np.testing.assert_allclose(terms[name], value, 2e-5, 1e-5, err_msg=name)


def test_a_far_partner_leaves_nothing_to_do():
    student = {"exit_4": interleaved(reference.TEACHER, reference.TEACHER + 9)}
    teacher = {"exit_4": interleaved(reference.TEACHER, reference.TEACHER)}
    term = terms_of(Triplet(), student, teacher, reference.LABELS)["triplet/exit_4"]
    np.testing.assert_array_equal(term, np.zeros(4))


def test_gradients_reach_both_rows_of_the_student_and_no_teacher():
    student = {"exit_4": tf.constant(interleaved(reference.STUDENT, NEGATIVE))}
    teacher = {"exit_4": tf.constant(interleaved(reference.TEACHER, NEGATIVE))}
    targets = {"label": doubled(reference.LABELS)}
    with tf.GradientTape() as tape:
        tape.watch([student, teacher])
        term = Triplet(margin=50.0)(student, teacher, targets)["triplet/exit_4"]
        total = tf.reduce_sum(term)
    to_student, to_teacher = tape.gradient(total, [student, teacher])
    assert to_teacher["exit_4"] is None
    assert np.all(np.abs(to_student["exit_4"]).sum(-1) > 0.5)
    away = reference.STUDENT - reference.TEACHER
    away /= np.linalg.norm(away, axis=-1, keepdims=True)
    np.testing.assert_allclose(to_student["exit_4"][::2], away, 1e-4, 1e-5)


def test_equal_outputs_have_finite_gradients():
    same = interleaved(reference.TEACHER, reference.TEACHER)
    student, teacher = {"exit_4": tf.constant(same)}, {"exit_4": same}
    with tf.GradientTape() as tape:
        tape.watch(student)
        targets = {"label": doubled(reference.LABELS)}
        total = tf.reduce_sum(Triplet()(student, teacher, targets)["triplet/exit_4"])
    assert np.isfinite(tape.gradient(total, student)["exit_4"]).all()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_partners_come_into_alternate_rows(dtype, digits):
    images, other = digits[0][:4].astype(dtype), digits[0][4:8]
    targets = {"label": digits[1][:4], "index": np.arange(4), "other_image": other}
    made, repeated = Triplet().augment(images, targets, None, None)
    assert made.dtype == dtype and set(repeated) == {"label", "index"}
    np.testing.assert_array_equal(made[::2], images)
    np.testing.assert_array_equal(made[1::2], other.astype(dtype))
    np.testing.assert_array_equal(repeated["label"], np.repeat(digits[1][:4], 2))


def test_a_step_learns_from_both_images(tiny, digits):
    """The loss of a step is the formula on one forward pass of all rows."""
    student, teacher = tiny((4,)), tiny((4,), 1 / 8)
    distiller = Distiller(student, teacher, "triplet")
    distiller.compile(SGD(0.0), jit_compile=False)
    images, other = digits[0][:8], digits[0][8:16]
    both = interleaved(images, other)
    positive, negative = (
        student(both, training=True)["exit_4"].numpy()[v::2] for v in (0, 1)
    )
    anchor = teacher(images, training=False)["exit_4"].numpy()
    targets = {"label": digits[1][:8], "other_image": other}
    logs = distiller.train_step((images, targets))
    gap = distance(anchor, positive) - distance(anchor, negative) + 5
    known = (
        reference.cross_entropy(digits[1][:8], positive)
        + reference.softened_kl(anchor, positive, 1.0)
        + 2 * np.maximum(gap, 0)
    )
    np.testing.assert_allclose(logs["loss"], known.mean(), 1e-4)


def test_data_without_partners_are_refused(tiny, digits):
    distiller = Distiller(tiny((4,)), tiny((4,), 1 / 8), "triplet")
    distiller.compile(SGD(0.0), jit_compile=False)
    with pytest.raises(UserError, match="'triplet' reads targets.'other_image'."):
        distiller.train_step((digits[0][:8], digits[1][:8]))
