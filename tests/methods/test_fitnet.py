"""FitNet: the hint against known answers, and the paper's two stages."""

import numpy as np
import pytest

from tests import reference
from tf_mskd import KD, SGD, Distiller, UserError
from tf_mskd.methods.fitnet import FitNet

STUDENT = reference.fill(0.3, [4, 4, 4, 3])
TEACHER = reference.fill(0.9, [4, 4, 4, 3])


def hint(student, teacher, shift=None):
    """The term [B]; a `shift` makes the regressor x + shift, above 0 for its ReLU."""
    size = len(student)
    inputs = (
        {"exit_3": np.zeros((size, 5), np.float32), "feature_2": np.float32(student)},
        {"feature_2": np.float32(teacher)},
        {"label": np.zeros(size, np.int32)},
    )
    method = FitNet()
    terms = method(*inputs)
    regressor = method.regressors["feature_2"]
    if shift is not None:
        regressor.conv.kernel.assign(np.eye(3)[None, None])
        regressor.norm.gamma.assign(np.sqrt(student.var((0, 1, 2)) + 1e-5))
        regressor.norm.beta.assign(student.mean((0, 1, 2)) + shift)
        terms = method(*inputs)
    assert set(terms) == {"ce/exit_3", "fitnet/feature_2"}
    return terms["fitnet/feature_2"].numpy(), regressor


def test_known_answers_with_the_identity_as_regressor():
    value, _ = hint(STUDENT, TEACHER + 2, shift=2)
    np.testing.assert_allclose(value.mean(), 0.17378306, 2e-5)
    expected = np.mean((STUDENT - TEACHER) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(value, expected, 1e-4)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_a_constant_offset_gives_its_square(offset):
    value, _ = hint(STUDENT, STUDENT + 2 + offset, shift=2)
    np.testing.assert_allclose(value, np.full(4, offset**2), 1e-4, 1e-10)


def test_random_maps_match_the_formula():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(5, 4, 4, 3)), rng.normal(size=(5, 4, 4, 7))
    value, regressor = hint(student, teacher)
    x = student @ regressor.conv.kernel.numpy()[0, 0].astype(float)
    x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    expected = np.mean((np.maximum(x, 0) - teacher) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(value, expected, 1e-4)


def test_the_tap_chooses_the_stage():
    names = ["exit_4", "feature_1", "feature_2", "feature_3"]
    assert FitNet().output_pairs(names, names) == {"feature_2": ("feature_2",)}
    assert FitNet(tap=3).output_pairs(names, names) == {"feature_3": ("feature_3",)}


def test_refuses_a_tap_that_a_network_lacks():
    few, many = ["exit_1", "feature_1"], ["feature_1", "feature_2"]
    message = "'fitnet' reads feature_2 of the student, which has feature_1: choose"
    with pytest.raises(UserError, match=message):
        FitNet().output_pairs(few, many)
    with pytest.raises(UserError, match="of the teacher, which has no feature maps"):
        FitNet().output_pairs(many, ["exit_1"])


def test_refuses_a_map_that_is_too_small():
    student, teacher = STUDENT[:, :1, :1], TEACHER
    with pytest.raises(UserError, match="'regress_feature_2' .* map of 1x1 .* of 4x4"):
        hint(student, teacher)


def test_the_first_stage_leaves_what_is_behind_the_tap_alone(tiny, digits):
    student, teacher = tiny((4,)), tiny((4,), 1 / 8)
    distiller = Distiller(student, teacher, FitNet(), term_weights={"ce": 0})
    distiller.compile(SGD(0.05), jit_compile=False)
    before = {v.path: v.numpy() for v in student.trainable_variables}
    hints = [
        float(
            distiller.train_step((digits[0][:64], digits[1][:64]))["fitnet/feature_2"]
        )
        for _ in range(4)
    ]
    assert hints[-1] < hints[0], hints
    moved = {
        v.path
        for v in student.trainable_variables
        if not np.array_equal(before[v.path], v.numpy())
    }
    assert any("stage_2" in path for path in moved), moved
    behind = [p for p in moved if "stage_3" in p or "stage_4" in p or "exit" in p]
    assert not behind, behind


def test_the_second_stage_is_kd_whose_weight_falls_from_four_to_one():
    method = KD(temperature=3.0, decay=4.0)
    factors = [method.schedule(epoch, 4, [])["kd"] for epoch in range(4)]
    np.testing.assert_allclose(factors, [4, 3, 2, 1])
    assert method.schedule(0, 1, []) == {"kd": 4.0}
    assert KD().schedule(0, 4, []) == {}


@pytest.mark.run
def test_the_decay_reaches_the_weight_of_the_term(tiny, digits):
    distiller = Distiller(tiny((4,)), tiny((4,), 1 / 8), KD(decay=4.0))
    distiller.compile(SGD(1e-3), jit_compile=False)
    distiller.fit(digits[0][:16], digits[1][:16], epochs=2, verbose=0)
    np.testing.assert_allclose(float(distiller.term_weights["kd"]), 0.9, 1e-6)
    distiller.set_term_factors(distiller.method.schedule(0, 2, []))
    np.testing.assert_allclose(float(distiller.term_weights["kd"]), 3.6, 1e-6)
