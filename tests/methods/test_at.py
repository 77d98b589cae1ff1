"""AT: maps of attention; known answers and invariances."""

import numpy as np
import pytest

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.common.create import create_method
from tf_mskd.methods.common.losses import attention, normalize, pool_to_smaller

FS = reference.fill(0.3, [4, 4, 4, 3])
FT = reference.fill(0.9, [4, 2, 2, 6])
FT2 = reference.fill(0.9, [4, 4, 4, 3])


def mean_pooled(x, side):
    """Average pooling [B, H, W, C] to [B, side, side, C], float64."""
    step = x.shape[1] // side
    return x.reshape(len(x), side, step, side, step, -1).mean((2, 4))


def formula(student_x, teacher_x):
    """mean_i (A(F_s) - A(F_t))^2 of each example; Zagoruyko, Komodakis 2017."""
    side = min(student_x.shape[1], teacher_x.shape[1])
    maps = []
    for x in (student_x, teacher_x):
        energy = (mean_pooled(x, side) ** 2).mean(-1).reshape(len(x), -1)
        maps.append(energy / np.linalg.norm(energy, axis=1, keepdims=True))
    return ((maps[0] - maps[1]) ** 2).mean(1)


def term(student_x, teacher_x):
    student = {"exit_2": reference.STUDENT[: len(student_x)], "feature_2": student_x}
    label = {"label": reference.LABELS[: len(student_x)]}
    terms = create_method("at")(student, {"feature_2": teacher_x}, label)
    return np.asarray(terms["at/feature_2"], np.float64)


@pytest.mark.parametrize(
    "teacher_x, expected", [(FT2, 0.00705567), (FT, 0.02986113)], ids=["same", "pooled"]
)
def test_fixture(teacher_x, expected):
    np.testing.assert_allclose(term(FS, teacher_x).mean(), expected, 2e-5, err_msg="at")


def test_known_answer_by_hand():
    # energies 3 and 4: the unit vector .6, .8
    student_x = np.array([[[[3**0.5], [2.0]]]])
    teacher_x = np.array([[[[1.0], [0.0]]]])
    np.testing.assert_allclose(term(student_x, teacher_x), [0.4], 2e-5)


def test_agrees_with_the_formula_whichever_map_is_larger():
    rng = np.random.default_rng(0)
    big, small = rng.normal(size=(4, 8, 8, 5)), rng.normal(size=(4, 2, 2, 7))
    for pair in ((big, small), (small, big)):
        np.testing.assert_allclose(term(*pair), formula(*pair), 2e-5)


def test_scale_of_an_example_does_not_matter():
    scale = np.array([0.1, 1.0, 5.0, 30.0]).reshape(4, 1, 1, 1)
    np.testing.assert_allclose(term(scale * FS, FT), term(FS, FT), 2e-5)
    np.testing.assert_allclose(term(FS, FT2) - term(FS, scale * FT2), 0, atol=1e-7)


def test_stages_are_paired_from_the_deep_end():
    method = create_method("at")
    pairs = method.output_pairs(["feature_1", "feature_2", "exit_1"], ["feature_1"])
    assert pairs == {"feature_2": ("feature_1",)}


def test_a_network_without_maps_is_refused():
    with pytest.raises(UserError, match="reads feature_k of the teacher, which makes"):
        create_method("at").output_pairs(["feature_1"], ["exit_1"])


def test_zero_maps_give_zero_attention():
    assert not np.any(attention(np.zeros((2, 3, 3, 4))))
    assert not np.any(normalize(np.zeros((2, 3))))


def test_pooling_keeps_the_smaller_map():
    student_x, teacher_x = pool_to_smaller(FS, FT)
    np.testing.assert_allclose(student_x, mean_pooled(FS, 2), 1e-5)
    np.testing.assert_array_equal(teacher_x, FT)
    student_x, _ = pool_to_smaller(FS, FT[:, :1, :1])
    np.testing.assert_allclose(student_x, mean_pooled(FS, 1), 1e-5)
