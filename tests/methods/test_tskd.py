"""TSKD: teacher, own deepest exit and deep features."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.reference import fill
from tf_mskd import MSKD, UserError
from tf_mskd.methods.tskd import TSKD

VECTORS = {f"embedding_{k}": fill(0.2 * k, [4, 6]) for k in (1, 2, 3, 4)}
MAPS = {
    "feature_1": fill(0.1, [4, 4, 4, 2]),
    "feature_2": fill(0.2, [4, 4, 4, 3]),
    "feature_3": fill(0.3, [4, 2, 2, 4]),
    "feature_4": fill(0.4, [4, 2, 2, 5]),
}
EXITS = reference.STUDENT_EXITS
TEACHER = {"exit_4": np.float32(reference.TEACHER)}
TARGETS = {"label": reference.LABELS}


def terms_of(method, student, teacher=TEACHER, targets=TARGETS):
    student = {name: np.float32(value) for name, value in student.items()}
    return {n: np.array(t) for n, t in method(student, teacher, targets).items()}


def loss(terms, weights):
    return sum(weights[n.split("/")[0]] * term.mean() for n, term in terms.items())


def test_loss_of_the_fixture_without_features():
    method = TSKD()
    terms = terms_of(method, {**EXITS, **VECTORS})
    weights = {**method.default_weights, "tskd_feature": 0.0}
    np.testing.assert_allclose(loss(terms, weights), 12.42951590, 2e-5)
    own = sum(terms[f"tskd/exit_{k}"].mean() for k in (1, 2, 3))
    np.testing.assert_allclose(own, 0.51770994, 2e-5)


def test_without_its_own_terms_it_is_mskd():
    terms = terms_of(TSKD(), {**EXITS, **VECTORS})
    mskd = terms_of(MSKD(preset="hsakd"), EXITS)
    weights = {"ce": 1.0, "kd": 1.0, "tskd": 0.0, "tskd_feature": 0.0}
    np.testing.assert_allclose(loss(terms, weights), loss(mskd, weights), 1e-6)


def test_terms_are_the_formula_on_random_outputs():
    rng = np.random.default_rng(4)
    student = {f"exit_{k}": 3 * rng.normal(size=(8, 5)) for k in (1, 2, 3)}
    student |= {f"embedding_{k}": rng.normal(size=(8, 2 + k)) for k in (1, 2, 3)}
    teacher = {"exit_2": np.float32(3 * rng.normal(size=(8, 5)))}
    labels = rng.integers(0, 5, 8)
    method = TSKD(temperature=2.0)
    terms_of(method, student, teacher, {"label": labels})
    for k in (1, 2):
        adapter = method.adapters[f"embedding_{k}"]
        adapter.set_weights([fill(k, [2 + k, 5]), fill(k, [5])])
    terms = terms_of(method, student, teacher, {"label": labels})
    known = {}
    for k in (1, 2, 3):
        z = student[f"exit_{k}"]
        known[f"ce/exit_{k}"] = reference.cross_entropy(labels, z)
        known[f"kd/exit_{k}"] = reference.softened_kl(teacher["exit_2"], z, 2.0)
        if k < 3:
            last = student["exit_3"]
            known[f"tskd/exit_{k}"] = reference.softened_kl(last, z, 2.0)
            moved = student[f"embedding_{k}"] @ fill(k, [2 + k, 5]) + fill(k, [5])
            square = (moved - student["embedding_3"]) ** 2
            known[f"tskd_feature/embedding_{k}"] = square.mean(-1)
    assert set(terms) == set(known)
    for name, value in known.items():
        np.testing.assert_allclose(terms[name], value, 2e-5, 1e-6, err_msg=name)


def test_maps_are_pooled_and_mapped_to_the_deepest_one():
    student = {**EXITS, **MAPS}
    method = TSKD(features="feature")
    terms_of(method, student)
    kernels = {1: fill(1, [2, 5]), 2: fill(2, [3, 5]), 3: fill(3, [4, 5])}
    for k, kernel in kernels.items():
        adapter = method.adapters[f"feature_{k}"]
        adapter.set_weights([kernel[None, None], np.zeros(5)])
    terms = terms_of(method, student)
    for k, kernel in kernels.items():
        x = MAPS[f"feature_{k}"]
        if k < 3:
            x = x.reshape(4, 2, 2, 2, 2, -1).mean((2, 4))
        known = np.mean((x @ kernel - MAPS["feature_4"]) ** 2, (1, 2, 3))
        got = terms[f"tskd_feature/feature_{k}"]
        np.testing.assert_allclose(got, known, 2e-5, err_msg=str(k))


def test_the_teacher_may_teach_the_last_exit_alone():
    terms = terms_of(TSKD(supervised="last"), {**EXITS, **VECTORS})
    assert [n for n in terms if n.startswith("kd/")] == ["kd/exit_4"]
    assert "tskd/exit_1" in terms


def test_the_deepest_exit_is_not_pulled_to_the_shallower_ones():
    student = {n: tf.constant(v, "float32") for n, v in {**EXITS, **VECTORS}.items()}
    method = TSKD()
    method(student, TEACHER, TARGETS)
    with tf.GradientTape() as tape:
        tape.watch(student)
        terms = method(student, TEACHER, TARGETS)
        own = [t for n, t in terms.items() if n.startswith("tskd")]
        total = sum(tf.reduce_sum(t) for t in own)
    gradients = tape.gradient(total, student)
    assert gradients["exit_4"] is None and gradients["embedding_4"] is None
    assert np.any(gradients["exit_1"]) and np.any(gradients["embedding_1"])


def test_without_the_deepest_exit_teacher_and_labels_stay():
    method = TSKD()
    terms_of(method, {**EXITS, **VECTORS})
    early = {n: v for n, v in {**EXITS, **VECTORS}.items() if n[-1] in "12"}
    terms = terms_of(method, early)
    assert set(terms) == {"ce/exit_1", "ce/exit_2", "kd/exit_1", "kd/exit_2"}


def test_a_student_without_feature_maps_is_refused():
    names = ["exit_1", "exit_2", "embedding_1", "embedding_2"]
    with pytest.raises(UserError, match="'tskd' reads 'feature_1' of the student"):
        TSKD(features="feature").output_pairs(names, ["exit_1"])
