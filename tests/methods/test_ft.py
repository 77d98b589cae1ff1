"""FT: normalised factors, in the paper's form and in the benchmark's."""

import numpy as np
import pytest

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.common.create import create_method
from tf_mskd.methods.ft import FT

FS = reference.fill(0.3, [4, 4, 4, 3])
FT2 = reference.fill(0.9, [4, 4, 4, 3])
LABEL = {"label": reference.LABELS}


class Given(FT):
    """FT on a student's factor that is given, not translated."""

    def _translate(self, x):
        return x


def term(factor, target, form):
    method = Given(form=form)
    student = {"exit_1": reference.STUDENT[: len(factor)], "feature_1": factor}
    label = {"label": reference.LABELS[: len(factor)]}
    return np.asarray(method(student, {"factor_1": target}, label)["ft/feature_1"])


def direction(factor, form):
    if form == "benchmark":
        factor = (factor**2).mean(-1)
    rows = factor.reshape(len(factor), -1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def formula(student_x, teacher_x, form):
    return abs(direction(student_x, form) - direction(teacher_x, form)).mean(1)


@pytest.mark.parametrize(
    ("form", "hand", "fixture"),
    [("paper", 0.55063764, 0.07645869), ("benchmark", 0.6, 0.07435281)],
)
def test_known_answers(form, hand, fixture):
    student_x = np.array([3**0.5, 2.0]).reshape(1, 1, 2, 1)
    teacher_x = np.array([1.0, 0.0]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(term(student_x, teacher_x, form), [hand], 2e-5)
    np.testing.assert_allclose(term(FS, FT2, form).mean(), fixture, 2e-5)


@pytest.mark.parametrize("form", ["paper", "benchmark"])
def test_equal_directions_cost_nothing_and_lengths_do_not_count(form):
    assert (term(FS, FS, form) == 0).all()
    scale = np.array([0.1, 1.0, 3.0, 70.0]).reshape(4, 1, 1, 1)
    got = term(scale * FS, FT2 / scale, form)
    np.testing.assert_allclose(got, term(FS, FT2, form), 2e-5)


@pytest.mark.parametrize("form", ["paper", "benchmark"])
def test_the_larger_factor_is_pooled(form):
    large = np.random.default_rng(0).normal(size=(4, 4, 4, 3))
    small = np.random.default_rng(1).normal(size=(4, 2, 2, 3))
    pooled = large.reshape(4, 2, 2, 2, 2, 3).mean((2, 4))
    got = term(large, small, form)
    np.testing.assert_allclose(got, formula(pooled, small, form), 2e-5)
    got = term(small, large, form)
    np.testing.assert_allclose(got, formula(small, pooled, form), 2e-5)


def convolve(x, kernel, bias):
    """3x3, zero padding 1 on all sides."""
    x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    size = x.shape[1] - 2
    parts = [
        x[:, i : i + size, j : j + size] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    ]
    return sum(parts) + bias


@pytest.mark.parametrize("form", ["paper", "benchmark"])
def test_the_translator_is_three_convolutions(form):
    method = create_method("ft", form=form)
    target = reference.fill(0.5, [4, 4, 4, 2])
    student = {"exit_1": reference.STUDENT, "feature_1": FS}
    method(student, {"factor_1": target}, LABEL)
    x, start = FS, 0.1
    convolutions = [n for n in method.translator if hasattr(n, "kernel")]
    assert len(convolutions) == 3
    assert len(method.translator) == {"paper": 6, "benchmark": 9}[form]
    for layer, (wide, narrow) in zip(
        convolutions, [(3, 3), (3, 2), (2, 2)], strict=True
    ):
        kernel = 0.5 * reference.fill(start, [3, 3, wide, narrow])
        bias = reference.fill(start, [narrow])
        layer.set_weights([kernel, bias])
        start += 0.3
        x = convolve(x, kernel, bias)
        if form == "benchmark":
            x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
        x = np.where(x > 0, x, 0.1 * x)
    got = method(student, {"factor_1": target}, LABEL)["ft/feature_1"]
    np.testing.assert_allclose(got, formula(x, target, form), 1e-4)


def test_weights_belong_to_the_form():
    assert FT().default_weights == {"ce": 1.0, "ft": 500.0}
    assert FT(form="benchmark").default_weights == {"ce": 1.0, "ft": 200.0}


def test_refuses_what_does_not_fit():
    method = create_method("ft")
    message = "'ft' reads factor_k of the teacher, .* makes exit_1: train .* first"
    with pytest.raises(UserError, match=message):
        method.output_pairs(["exit_1", "feature_1"], ["exit_1"])
    with pytest.raises(
        UserError, match="reads feature_k of the student, .* only exit_1"
    ):
        method.output_pairs(["exit_1"], ["exit_1", "factor_1"])
