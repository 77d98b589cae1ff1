"""DML: both peers' losses; how they train is in test_learning_teacher.py."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd.methods.dml import DML

STUDENT = {"exit_4": np.float32(reference.STUDENT)}
TEACHER = {"exit_4": np.float32(reference.TEACHER)}
TARGETS = {"label": reference.LABELS}


def means(method, student=STUDENT, teacher=TEACHER, targets=TARGETS):
    terms = method(student, teacher, targets)
    return {name: float(np.mean(term)) for name, term in terms.items()}


def test_losses_of_the_fixture():
    got = means(DML())
    np.testing.assert_allclose(got["dml/exit_4"], 0.37810951, 2e-5)
    np.testing.assert_allclose(got["dml_teacher/exit_4"], 0.45209840, 2e-5)
    first = got["ce/exit_4"] + got["dml/exit_4"]
    np.testing.assert_allclose(first, 2.51595050, 2e-5)
    label = reference.cross_entropy(reference.LABELS, reference.TEACHER).mean()
    np.testing.assert_allclose(got["dml_teacher_ce/exit_4"], label, 2e-5)
    assert set(DML().default_weights.values()) == {1.0}


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_terms_of_every_pair_are_the_formula(temperature):
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 7, 8)
    student = {f"exit_{k}": 3 * rng.normal(size=(8, 7)) for k in (1, 2, 4)}
    teacher = {f"exit_{k}": 3 * rng.normal(size=(8, 7)) for k in (2, 3)}
    method = DML(temperature=temperature)
    terms = method(student, teacher, {"label": labels})
    known = {}
    for name, z in student.items():
        known[f"ce/{name}"] = reference.cross_entropy(labels, z)
    for name, teacher_exit in (("exit_2", "exit_2"), ("exit_4", "exit_3")):
        z, t = student[name], teacher[teacher_exit]
        known[f"dml/{name}"] = reference.softened_kl(t, z, temperature)
        known[f"dml_teacher/{name}"] = reference.softened_kl(z, t, temperature)
        known[f"dml_teacher_ce/{name}"] = reference.cross_entropy(labels, t)
    assert set(terms) == set(known)
    for name, value in known.items():
        np.testing.assert_allclose(terms[name], value, 2e-5, 1e-6, err_msg=name)


def test_peers_that_agree_teach_each_other_nothing():
    got = means(DML(), teacher=STUDENT)
    assert abs(got["dml/exit_4"]) < 1e-6 and abs(got["dml_teacher/exit_4"]) < 1e-6
    np.testing.assert_allclose(got["ce/exit_4"], got["dml_teacher_ce/exit_4"])


@pytest.mark.parametrize("term", ["ce", "dml", "dml_teacher_ce", "dml_teacher"])
def test_each_term_has_a_gradient_into_its_own_network_only(term):
    student = {n: tf.constant(z) for n, z in STUDENT.items()}
    teacher = {n: tf.constant(z) for n, z in TEACHER.items()}
    with tf.GradientTape() as tape:
        tape.watch([student, teacher])
        total = tf.reduce_sum(DML()(student, teacher, TARGETS)[f"{term}/exit_4"])
    to_student, to_teacher = tape.gradient(total, [student, teacher])
    is_teachers = term.startswith("dml_teacher")
    assert (to_student["exit_4"] is None) == is_teachers
    assert (to_teacher["exit_4"] is None) == (not is_teachers)


def test_a_phase_has_the_terms_of_its_pairs():
    exits = {f"exit_{k}": STUDENT["exit_4"] for k in (1, 2)}
    method = DML()
    method(exits, exits, TARGETS)
    early = method({"exit_1": exits["exit_1"]}, {"exit_1": exits["exit_1"]}, TARGETS)
    kinds = ("ce", "dml", "dml_teacher_ce", "dml_teacher")
    assert set(early) == {f"{kind}/exit_1" for kind in kinds}
