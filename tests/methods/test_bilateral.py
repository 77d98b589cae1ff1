"""Bilateral KD: both losses; how they train is in test_learning_teacher.py."""

import numpy as np
import pytest

from tests import reference
from tf_mskd.methods.bilateral import Bilateral
from tf_mskd.methods.common.create import create_method
from tf_mskd.methods.dml import DML

STUDENT = {"exit_4": np.float32(reference.STUDENT)}
TEACHER = {"exit_4": np.float32(reference.TEACHER)}
TARGETS = {"label": reference.LABELS}


def means(method):
    terms = method(STUDENT, TEACHER, TARGETS)
    return {n.split("/")[0]: float(np.mean(term)) for n, term in terms.items()}


def test_losses_of_the_fixture():
    got = means(Bilateral())
    student = got["ce"] + got["bilateral"]
    teacher = got["bilateral_teacher_ce"] + got["bilateral_teacher"]
    np.testing.assert_allclose(student, 2.72413034, 2e-5)
    np.testing.assert_allclose(teacher, 2.88464860, 2e-5)
    assert set(Bilateral().default_weights) == set(got)


@pytest.mark.parametrize("temperature", [1.0, 6.0])
def test_terms_are_the_formula(temperature):
    got = means(Bilateral(temperature=temperature))
    z, t = reference.STUDENT, reference.TEACHER
    forward = reference.softened_kl(t, z, temperature).mean()
    backward = reference.softened_kl(z, t, temperature).mean()
    np.testing.assert_allclose(got["bilateral"], forward, 2e-5)
    np.testing.assert_allclose(got["bilateral_teacher"], backward, 2e-5)


def test_at_temperature_one_and_rate_one_it_is_dml():
    one = Bilateral(temperature=1.0, teacher_rate=1.0)
    assert one.teacher_rate == DML().teacher_rate
    got = {n.replace("bilateral", "dml"): value for n, value in means(one).items()}
    assert got == means(DML())


def test_the_rate_of_a_composite_is_the_slowest():
    assert create_method("bilateral,dml").teacher_rate == 0.1
