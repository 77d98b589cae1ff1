"""DATS: attention, sampler and terms against known values; the two views."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.common import attention_sampling as sampling
from tf_mskd.methods.dats import DATS

FEATURES = np.float32(reference.fill(0.4, [1, 4, 4, 3]))
STUDENT = {"exit_1": np.float32(reference.STUDENT)}
TEACHER = {
    "exit_4": np.float32(reference.TEACHER),
    "feature_2": np.zeros((4, 4, 4, 3), "float32"),
}
LABEL = np.array([0, 0, 2, 2])


def test_relations_and_mean_map_of_the_fixture():
    got = sampling.relations(tf.constant(FEATURES.reshape(1, 16, 3))).numpy()[0]
    expected = [
        [0.45137978, 0.33038467, 0.21823555],
        [0.23168150, 0.37421364, 0.39410487],
        [0.23089602, 0.37396506, 0.39513892],
    ]
    np.testing.assert_allclose(got, expected, 2e-5)
    mean = sampling.trilinear_attention(tf.constant(FEATURES)).numpy().mean(-1)
    first = [0.76608891, -0.06963081, -0.69578322, 0.77215771]
    np.testing.assert_allclose(mean.ravel()[:4], first, 2e-5)


def test_pixels_are_read_where_the_density_is():
    got = sampling.sampling_positions(tf.constant([[0.1, 0.2, 0.4, 0.3], [2.0] * 4]))
    expected = [[0.625, 1.6875, 2.3125, 3.08333333], [0, 1, 2, 3]]
    np.testing.assert_allclose(got, expected, 2e-5, 2e-5)


def test_peaks_are_cut_at_the_limit_and_at_the_flatter_axis():
    one, two = np.ones((2, 1, 16), "float32")
    one[0, 5], two[0, 3:5] = 100, 20
    rows, columns = (d.numpy()[0] for d in sampling.limited([one, two]))
    np.testing.assert_allclose([rows[5], rows[0]], [4.24074652, 0.78395023], 2e-5)
    np.testing.assert_allclose([columns[4], columns[0]], [4.24074074, 0.53703704], 2e-5)
    flat = np.ones((1, 8), "float32")
    for density in sampling.limited([one, flat]):
        np.testing.assert_allclose(density, np.ones_like(density), atol=0.02)


@pytest.mark.parametrize("height", [0.0, 3.0])
def test_flat_attention_gives_the_image_itself(digits, height):
    images = np.float32(digits[0][:3])
    got = sampling.sample(images, tf.fill(images.shape[:3], height))
    np.testing.assert_allclose(got, images, atol=2e-3)


def test_a_peak_is_magnified():
    ramp = np.tile(np.arange(16, dtype="float32")[None, :, None], (16, 1, 1))[None]
    attention = np.ones((1, 16, 16), "float32")
    attention[:, 4:8, 4:8] = 9.0  # the densities of columns 4 to 7: 36 of 48
    row = sampling.sample(ramp, attention).numpy()[0, 0, :, 0]
    assert ((row > 3.5) & (row < 7.5)).sum() == 12
    assert np.all(np.diff(row) >= 0)


def test_terms_against_the_formula():
    terms = DATS()(STUDENT, TEACHER, {"label": LABEL})
    z, t, label = reference.STUDENT, reference.TEACHER, LABEL
    p = reference.softmax(t / 10)
    expected = {
        "ce/exit_1": reference.cross_entropy(label, z),
        "dats_teacher_ce/exit_1": reference.cross_entropy(label, t),
        "dats/exit_1": -np.sum(p * reference.log_softmax(z / 10), -1),
    }
    assert set(terms) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, 2e-5, err_msg=name)


def test_the_soft_term_of_the_fixture():
    terms = DATS()(STUDENT, TEACHER, {"label": LABEL})
    np.testing.assert_allclose(np.mean(terms["dats/exit_1"]), 1.60060781, 2e-5)


def test_the_student_gives_the_teacher_no_gradient_and_labels_do():
    logits = tf.constant(TEACHER["exit_4"])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        terms = DATS()(STUDENT, {**TEACHER, "exit_4": logits}, {"label": LABEL})
        soft, own = (tf.reduce_sum(v) for n, v in terms.items() if n[:2] != "ce")
    gradients = [tape.gradient(part, logits) for part in (soft, own)]
    assert sum(g is None for g in gradients) == 1


def test_the_two_views_are_sampled_by_the_teachers_map():
    method = DATS(stage=0, power=2)
    method(STUDENT, TEACHER, {"label": LABEL})
    peak = np.ones((1, 4, 4, 2), "float32")
    peak[:, 0, 0] = 2.0  # both maps are high at the upper left
    ramp = np.tile(np.arange(16, dtype="float32")[None, :, None], (16, 1, 1))[None]
    view, targets = method.augment(
        tf.constant(ramp), {"label": LABEL[:1]}, None, lambda x: {"feature_2": peak}
    )
    assert set(targets) == {"label", "teacher_view"}
    assert targets["teacher_view"].shape == view.shape == (1, 16, 16, 1)
    structure, detail = (x.numpy()[0, 8, :, 0] for x in (view, targets["teacher_view"]))
    assert structure.mean() < detail.mean() < ramp.mean()


def test_mistakes_are_told():
    with pytest.raises(UserError, match="reads feature_5 of the teacher, which makes"):
        DATS(stage=5).output_pairs(["exit_1"], ["exit_2", "feature_1"])
    flat = {**TEACHER, "feature_2": np.zeros((4, 1, 1, 3), "float32")}
    with pytest.raises(UserError, match="which has 1x1 places: name a shallower"):
        DATS()(STUDENT, flat, {"label": LABEL})
