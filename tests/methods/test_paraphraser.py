"""Paraphraser: reconstruction of a frozen teacher's deepest map."""

import dataclasses

import numpy as np
import pytest

from tests import reference
from tf_mskd import SGD, UserError
from tf_mskd.methods.common.create import create_method
from tf_mskd.runs import build
from tf_mskd.runs.config import Config

MAP = reference.fill(0.3, [4, 2, 2, 6])
MADE = reference.fill(0.9, [4, 2, 2, 6])


def term(**arguments):
    method = create_method("paraphraser", **arguments)
    student = {"feature_3": MAP, "reconstruction_3": MADE}
    return np.asarray(method(student, {}, {})["paraphraser/reconstruction_3"])


def test_losses_are_means_over_the_elements_of_a_row():
    gap = MADE - MAP
    np.testing.assert_allclose(term(), (gap**2).mean((1, 2, 3)), 2e-5)
    np.testing.assert_allclose(term(loss="l1"), abs(gap).mean((1, 2, 3)), 2e-5)


def test_a_perfect_reconstruction_costs_nothing():
    method = create_method("paraphraser")
    terms = method({"feature_3": MAP, "reconstruction_3": MAP}, {}, {})
    assert not np.any(terms["paraphraser/reconstruction_3"])


@dataclasses.dataclass(frozen=True)
class Shapes:
    num_classes: int = 10
    image_shape: tuple = (8, 8, 1)
    mean: tuple | None = None
    std: tuple | None = None


def test_the_run_trains_the_paraphraser_and_keeps_the_teacher_bit_for_bit(digits):
    images, labels = (part[:32] for part in digits)
    plain = Config(model="resnet10", width=1 / 8, exits="last", method="ce")
    teacher = build.build_student(plain, Shapes())
    config = dataclasses.replace(
        plain, method="paraphraser", init_flagfile="teacher.flags", freeze="backbone"
    )
    distiller = build.build_distiller(config, Shapes(), init=teacher)
    distiller.compile(SGD(0.1, momentum=0.0, l2=5e-4), jit_compile=False)
    before = {v.path: v.numpy() for v in distiller.student.variables}
    losses = [float(distiller.train_step((images, labels))["loss"]) for _ in range(10)]
    assert losses[-1] < losses[0]
    for variable in distiller.student.variables:
        same = np.array_equal(before[variable.path], variable.numpy())
        assert same != ("paraphraser" in variable.path), variable.path
    teacher_x, student_x = teacher(images), distiller.student(images)
    np.testing.assert_array_equal(teacher_x["exit_4"], student_x["exit_4"])
    assert set(student_x) == {"exit_4", "factor_4", "reconstruction_4"}
    assert student_x["factor_4"].shape == (32, 1, 1, 32)


def test_refuses_what_does_not_fit():
    message = "'paraphraser' reads reconstruction_k .* exit_1, feature_1: build it"
    with pytest.raises(UserError, match=message):
        create_method("paraphraser").output_pairs(["exit_1", "feature_1"], [])
