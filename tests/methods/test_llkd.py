"""LLKD: answers, edges and attention against the formulas; known answers."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.common.create import create_method
from tf_mskd.methods.llkd import attention_gap
from tf_mskd.tasks import create_task
from tf_mskd.tasks.image_quality import gradient_map

SIZE = (2, 16, 16, 3)
ANSWER = (0.5 + 0.4 * reference.fill(0.3, SIZE)).astype("float32")
CLEAN = (0.5 + 0.4 * reference.fill(0.35, SIZE)).astype("float32")


def close(got, expected, rtol=2e-5):
    np.testing.assert_allclose(np.asarray(got), expected, rtol)


def test_known_answer_of_attention():
    maps = reference.fill(0.3, [4, 4, 4, 3]), reference.fill(0.9, [4, 4, 4, 3])
    close(np.mean(attention_gap(*maps)), 0.11289071)


def terms_of(student, teacher, clean):
    method = create_method("llkd")
    method.set_task(create_task("restoration"))
    targets = {"label": tf.constant(clean)}
    return method, method(student, teacher, targets)


def test_llkd_by_the_formulas():
    maps = [
        reference.fill(s, [2, 8, 8, c]).astype("float32") for s, c in ((1, 3), (2, 5))
    ]
    student = {"exit_3": ANSWER, "feature_2": maps[0], "gradient_1": 0 * CLEAN}
    teacher = {"exit_3": CLEAN, "feature_2": maps[1]}
    _, terms = terms_of(student, teacher, CLEAN)
    assert list(terms) == [
        *("ce/exit_3", "ssim/exit_3", "edges/exit_3"),
        *("branch/gradient_1", "output/exit_3", "at/feature_2"),
    ]
    expected = {
        "ce/exit_3": 0.01273666,
        "ssim/exit_3": 1 - 0.99875725,
        "edges/exit_3": 0.01282031,
        "branch/gradient_1": 0.31071877,
        "output/exit_3": 0.01273666,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(np.mean(terms[name]), value, 1e-4, 2e-7)
    a, b = (np.square(m.astype("float64")).mean(-1).reshape(2, -1) for m in maps)
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    close(terms["at/feature_2"], ((a - b) ** 2).sum(1), 1e-4)


def test_equal_images_and_maps_leave_nothing_to_learn():
    edges = np.asarray(gradient_map(CLEAN))
    student = {"exit_3": CLEAN, "feature_2": CLEAN, "gradient_1": edges}
    method, terms = terms_of(student, student, CLEAN)
    assert {name.split("/")[0] for name in terms} == set(method.default_weights)
    for value in terms.values():
        np.testing.assert_allclose(value, 0, atol=1e-6)


def test_mistakes_are_told_in_a_line():
    with pytest.raises(UserError, match="is made for the task restoration"):
        create_method("llkd").set_task(create_task("classification"))
    with pytest.raises(UserError, match="reads gradient_k of the student, .*'unet'"):
        create_method("llkd").output_pairs(["exit_1", "feature_1"], ["exit_1"])
