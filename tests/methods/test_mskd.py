"""MSKD: one teacher output guides every exit; presets and arguments of its kind."""

import numpy as np
import pytest

from tests import reference
from tf_mskd import MSKD, UserError

PRESETS = {  # temperature, weight of the labels, weight of the teacher
    "repdistiller": (4.0, 0.1, 0.9),
    "hsakd": (3.0, 1.0, 1.0),
    "byot": (3.0, 0.7, 0.3),
    "even": (3.0, 0.5, 0.5),
}


def sums(method, teacher):
    terms = method(reference.STUDENT_EXITS, teacher, {"label": reference.LABELS})
    totals = {"ce": 0.0, "kd": 0.0}
    for name, term in terms.items():
        totals[name.split("/")[0]] += float(np.mean(term))
    return totals


def test_sums_of_the_fixture():
    totals = sums(MSKD(temperature=3.0), {"exit_4": reference.TEACHER})
    np.testing.assert_allclose(totals["kd"], 3.41144748, 2e-5, err_msg="mskd kd")
    np.testing.assert_allclose(totals["ce"], 8.50035848, 2e-5, err_msg="mskd ce")


@pytest.mark.parametrize("preset", PRESETS)
def test_weighted_sum_of_each_preset(preset):
    method = MSKD(preset=preset)
    temperature, ce, kd = PRESETS[preset]
    assert method.temperature == temperature, preset
    totals = sums(method, {"exit_4": reference.TEACHER})
    got = sum(method.default_weights[name] * total for name, total in totals.items())
    expected = reference.objective(
        dict.fromkeys(reference.STUDENT_EXITS, "exit_4"),
        reference.STUDENT_EXITS,
        {"exit_4": reference.TEACHER},
        reference.LABELS,
        ce,
        kd,
        temperature,
    )
    np.testing.assert_allclose(got, expected, 2e-5, err_msg=f"mskd {preset}")


def test_reads_only_the_teachers_last_exit():
    names = ["exit_1", "exit_2"]
    pairs = MSKD().output_pairs(names, ["exit_2", "exit_3"])
    assert set(pairs.values()) == {("exit_3",)} and list(pairs) == names
    assert MSKD().output_pairs(names[:1], ["exit_1"]) == {names[0]: ("exit_1",)}


def test_another_exit_of_the_teacher_may_guide():
    exits = ["exit_1", "exit_2"]
    assert MSKD(guide=1).output_pairs(exits, ["exit_1", "exit_3"]) == {
        "exit_1": ("exit_1",),
        "exit_2": ("exit_1",),
    }
    with pytest.raises(UserError, match="guided by exit_2, the teacher has exit_1, ex"):
        MSKD(guide=2).output_pairs(exits, ["exit_1", "exit_3"])
    with pytest.raises(UserError, match="guide must be >= 0, got -1"):
        MSKD(guide=-1)
