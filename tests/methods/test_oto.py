"""OtO: exit to exit; alignment from the deep end and explicit maps."""

import numpy as np
import pytest

from tests import reference
from tf_mskd import OtO, UserError


def names(*numbers):
    return [f"exit_{k}" for k in numbers]


def numbers(pairs):
    return {int(s[5:]): int(t[5:]) for s, (t,) in pairs.items()}


def test_sum_of_the_fixture():
    terms = OtO(temperature=3.0)(
        reference.STUDENT_EXITS, reference.TEACHER_EXITS, {"label": reference.LABELS}
    )
    kd = sum(float(np.mean(terms[f"kd/exit_{k}"])) for k in (1, 2, 3, 4))
    np.testing.assert_allclose(kd, 0.85973511, 2e-5, err_msg="oto kd")
    ce = sum(float(np.mean(terms[f"ce/exit_{k}"])) for k in (1, 2, 3, 4))
    np.testing.assert_allclose(ce, 8.50035848, 2e-5, err_msg="oto ce")


def test_standardised_sum_of_the_fixture():
    terms = OtO(preset="lskd")(
        reference.STUDENT_EXITS, reference.TEACHER_EXITS, {"label": reference.LABELS}
    )
    kd = sum(float(np.mean(terms[f"kd/exit_{k}"])) for k in (1, 2, 3, 4))
    np.testing.assert_allclose(kd, 0.04556921, 2e-5, err_msg="oto lskd")


@pytest.mark.parametrize(
    "student, teacher, expected",
    [
        ((1, 2, 3, 4), (1, 2, 3, 4), {1: 1, 2: 2, 3: 3, 4: 4}),
        ((1, 2, 3), (1, 2, 3, 4), {1: 2, 2: 3, 3: 4}),
        ((3, 4), (1, 2, 3), {3: 2, 4: 3}),
        ((4,), (1, 2, 3), {4: 3}),
        ((2, 4), (1, 2, 3, 4), {2: 2, 4: 4}),
    ],
)
def test_alignment_from_the_deep_end(student, teacher, expected):
    assert numbers(OtO().output_pairs(names(*student), names(*teacher))) == expected


def test_exits_are_ordered_by_number():
    assert numbers(OtO().output_pairs(names(1, 9, 10), names(9, 10, 1)))[10] == 10


@pytest.mark.parametrize("exit_map", ["1:2,2:4,3:4", {1: 2, 2: 4, 3: 4}])
def test_explicit_map(exit_map):
    method = OtO(exit_map=exit_map)
    expected = {1: 2, 2: 4, 3: 4}
    assert numbers(method.output_pairs(names(1, 2, 3), names(1, 2, 3, 4))) == expected
    again = OtO.from_config(method.get_config())
    assert again.exit_map == expected


def test_refuses_a_map_that_cannot_be_read():
    for text in ("1-2", "1:2:3", "a:b", "1"):
        with pytest.raises(UserError, match=f"like 1:2,2:3 .* got '{text}'"):
            OtO(exit_map=text)


@pytest.mark.parametrize(
    "exit_map, student, teacher, message",
    [
        (
            "",
            (1, 2, 3),
            (1, 2),
            "Student exit_1 needs exit_0 of the teacher",
        ),
        (
            "1:5,2:2",
            (1, 2),
            (1, 2),
            "Student exit_1 needs exit_5 of the teacher",
        ),
        ("1:1", (1, 2), (1, 2), "exit_map has no entry for student exit_2: map every"),
    ],
)
def test_refuses_an_exit_without_a_teacher_exit(exit_map, student, teacher, message):
    with pytest.raises(UserError, match=message):
        OtO(exit_map=exit_map).output_pairs(names(*student), names(*teacher))


def test_refuses_a_map_of_exits_the_student_lacks():
    method = OtO(exit_map="1:1,2:2,3:3")
    logits = {name: np.zeros((4, 5)) for name in names(1, 2, 3)}
    student = {name: logits[name] for name in names(1, 2)}
    with pytest.raises(UserError, match="names student exit 3, the student has exit_1"):
        method(student, logits, {"label": np.zeros(4, np.int32)})
