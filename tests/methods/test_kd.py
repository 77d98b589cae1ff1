"""KD: the teacher's last exit guides a student of one exit."""

import numpy as np
import pytest

from tests import reference
from tf_mskd import KD, UserError
from tf_mskd.tasks import create_task


@pytest.mark.parametrize(
    "temperature, expected", [(1.0, 0.37810951), (3.0, 0.57027378), (4.0, 0.58628936)]
)
def test_fixture(temperature, expected):
    student = {"exit_4": reference.STUDENT}
    teacher = {"exit_4": reference.TEACHER}
    terms = KD(temperature=temperature)(student, teacher, {"label": reference.LABELS})
    assert set(terms) == {"ce/exit_4", "kd/exit_4"}
    got = [float(np.mean(terms[name])) for name in ("kd/exit_4", "ce/exit_4")]
    np.testing.assert_allclose(got, [expected, 2.13784098], 2e-5, err_msg="kd")


@pytest.mark.parametrize(
    "temperature, expected", [(1.0, 0.15135294), (2.0, 0.16412434), (4.0, 0.16664184)]
)
def test_standardised_logits(temperature, expected):
    student, label = {"exit_4": reference.STUDENT}, {"label": reference.LABELS}
    teacher = {"exit_4": reference.TEACHER}
    method = KD(preset="lskd", temperature=temperature)
    assert method.default_weights == {"ce": 0.1, "kd": 9.0}
    terms = method(student, teacher, label)
    got = [float(np.mean(terms[name])) for name in ("kd/exit_4", "ce/exit_4")]
    np.testing.assert_allclose(got, [expected, 2.13784098], 2e-5, err_msg="lskd")
    scaled = {"exit_4": 3 * reference.TEACHER + [[1], [2], [3], [4]]}
    again = method(student, scaled, label)["kd/exit_4"]
    np.testing.assert_allclose(again, terms["kd/exit_4"], 1e-4)


def test_standardised_logits_need_classes():
    with pytest.raises(UserError, match="preset=lskd, which the task 'restoration'"):
        KD(preset="lskd").set_task(create_task("restoration"))


def test_reads_the_last_exit_of_any_teacher():
    pairs = KD().output_pairs(["exit_1"], ["exit_1", "exit_2"])
    assert pairs == {"exit_1": ("exit_2",)}


def test_refuses_a_student_of_several_exits():
    with pytest.raises(UserError, match="'kd' trains one exit, the student has 2"):
        KD().output_pairs(["exit_1", "exit_2"], ["exit_1"])
