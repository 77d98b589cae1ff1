"""HSAKD and the stage before it: terms, joint labels, views and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.reference import fill
from tf_mskd import UserError
from tf_mskd.methods.hsakd import HSAKD
from tf_mskd.methods.hsakd_teacher import HSAKDTeacher

LABEL = np.repeat([1, 2], 4).astype("int32")
STUDENT = {f"rotation_{k}": 2 * fill(0.1 * k, [8, 12]) for k in (1, 2, 3)}
STUDENT = {"exit_3": 2 * fill(0.4, [8, 3]), **STUDENT}
TEACHER = {f"rotation_{k}": 2 * fill(0.5 * k, [8, 12]) for k in (1, 2, 3)}
TEACHER = {"exit_3": 2 * fill(1.1, [8, 3]), **TEACHER}


def total(method, terms):
    weights = method.default_weights
    return sum(weights[n.split("/")[0]] * float(np.mean(v)) for n, v in terms.items())


def random_outputs(seed, stages, exits):
    rng = np.random.default_rng(seed)
    outputs = {f"exit_{k}": 3 * rng.normal(size=(24, 5)) for k in exits}
    aux = {f"rotation_{k}": rng.normal(size=(24, 20)) for k in range(1, stages + 1)}
    return {**outputs, **aux}


def test_student_and_teacher_totals_of_the_fixture():
    method = HSAKD()
    terms = method(STUDENT, TEACHER, {"label": LABEL})
    np.testing.assert_allclose(total(method, terms), 3.90297335, 2e-5)
    method = HSAKDTeacher()
    terms = method(TEACHER, {}, {"label": LABEL})
    np.testing.assert_allclose(total(method, terms), 12.01433497, 2e-5)


def test_terms_equal_the_reference_with_several_exits_and_other_stages():
    student, teacher = random_outputs(1, 3, (1, 3)), random_outputs(2, 4, (4,))
    label = np.repeat(np.arange(6) % 5, 4).astype("int32")
    got = HSAKD(temperature=2.0)(student, teacher, {"label": label})
    expected = {}
    for k in (1, 3):
        z = student[f"exit_{k}"]
        expected[f"ce/exit_{k}"] = reference.cross_entropy(label[::4], z[::4])
        kl = reference.softened_kl(teacher["exit_4"], z, 2.0)
        expected[f"kd/exit_{k}"] = kl
    for k in (1, 2, 3):  # the last with the last
        teacher_x = teacher[f"rotation_{k + 1}"]
        kl = reference.softened_kl(teacher_x, student[f"rotation_{k}"], 2.0)
        expected[f"hsakd/rotation_{k}"] = kl
    assert set(got) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, 1e-4, 1e-5, err_msg=name)


def test_teacher_terms_equal_the_reference():
    network = random_outputs(3, 2, (1, 2))
    classes = np.array([0, 4, 2, 2, 1, 3])
    label = classes.repeat(4).astype("int32")
    got = HSAKDTeacher()(network, {}, {"label": label})
    joint = (4 * classes[:, None] + np.arange(4)).ravel()
    expected = {}
    for k in (1, 2):
        z = network[f"exit_{k}"]
        expected[f"ce/exit_{k}"] = reference.cross_entropy(classes, z[::4])
        hard = reference.cross_entropy(joint, network[f"rotation_{k}"])
        expected[f"hsakd_teacher/rotation_{k}"] = hard
    assert set(got) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, 1e-5, err_msg=name)


def test_the_student_learns_nothing_where_it_is_the_teacher():
    got = HSAKD()(TEACHER, TEACHER, {"label": LABEL})
    for name, value in got.items():
        if not name.startswith("ce/"):
            np.testing.assert_allclose(value, 0.0, atol=1e-6, err_msg=name)


def test_labels_do_not_reach_the_students_classifiers():
    other = (LABEL + 1) % 3
    one = HSAKD()(STUDENT, TEACHER, {"label": LABEL})
    two = HSAKD()(STUDENT, TEACHER, {"label": other})
    for name in one:
        same = np.array_equal(one[name], two[name])
        assert same != name.startswith("ce/"), name


def test_an_early_phase_trains_its_own_classifier_alone():
    student, teacher = random_outputs(1, 3, (1, 3)), random_outputs(2, 3, (3,))
    method, targets = HSAKD(), {"label": np.zeros(24, "int32")}
    method(student, teacher, targets)
    early = method({n: student[n] for n in ("exit_1", "rotation_1")}, teacher, targets)
    assert set(early) == {"ce/exit_1", "kd/exit_1", "hsakd/rotation_1"}


@pytest.mark.parametrize("method", [HSAKD(), HSAKDTeacher()])
def test_views_are_the_four_rotations(method, digits):
    images, label = digits[0][:6], digits[1][:6]
    got, targets = method.augment(tf.constant(images), {"label": label}, None, None)
    assert method.rows_per_image == 4 and not method.variables
    for row in range(24):
        np.testing.assert_array_equal(got[row], np.rot90(images[row // 4], row % 4))
    np.testing.assert_array_equal(targets["label"], label.repeat(4))


def test_networks_without_classifiers_are_refused():
    with pytest.raises(UserError, match="'hsakd' reads rotation_k of the student, wh"):
        HSAKD().output_pairs(["exit_3"], list(TEACHER))
    message = "of the teacher, which makes exit_3: train those heads first, with method"
    with pytest.raises(UserError, match=message):
        HSAKD().output_pairs(list(STUDENT), ["exit_3"])
    message = (
        r"'hsakd_teacher' reads rotation_k of the network.*create_model\(aux_heads='r"
    )
    with pytest.raises(UserError, match=message):
        HSAKDTeacher().output_pairs(["exit_3"], [])


@pytest.mark.parametrize("method", [HSAKD(), HSAKDTeacher()])
def test_images_that_are_not_square_are_refused(method):
    with pytest.raises(UserError, match="needs square images, got 8x6"):
        method.augment(tf.zeros([2, 8, 6, 3]), {}, None, None)
