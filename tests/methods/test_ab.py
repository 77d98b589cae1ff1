"""AB: distance to the teacher's side of zero; the first stage and the one after it."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import SGD, Distiller, UserError
from tf_mskd.methods.common.create import create_method
from tf_mskd.runs.initial_weights import copy_weights

FS = reference.fill(0.3, [4, 4, 4, 3])
FT = reference.fill(0.9, [4, 4, 4, 3])


def formula(s, t, margin=1.0):
    """3/1000 times the sum over a row, [B]; written as in the paper."""
    off = (s + margin) ** 2 * ((s > -margin) & (t <= 0))
    on = (s - margin) ** 2 * ((s <= margin) & (t > 0))
    return 3 / 1000 * (off + on).sum((1, 2, 3))


def terms_of(student, teacher, **arguments):
    """The terms of maps in lists, shallow to deep."""
    method = create_method("ab", **arguments)
    named = [
        {f"preact_{k}": z for k, z in enumerate(part, start=1)}
        for part in (student, teacher)
    ]
    return {n: np.asarray(v) for n, v in method(*named, {}).items()}


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_four_neurons_by_hand(sign):
    s = np.array([-2.0, -0.5, 0.5, 2.0]).reshape(1, 1, 1, 4)
    got = terms_of([s], [np.full_like(s, sign)])["ab/preact_1"]
    np.testing.assert_allclose(got, [0.0345], 2e-5)


def test_three_stages_of_the_fixture():
    terms = terms_of([2 * FS] * 3, [FT] * 3)
    assert list(terms) == ["ab/preact_1", "ab/preact_2", "ab/preact_3"]
    total = sum(term.mean() for term in terms.values())
    np.testing.assert_allclose(total, 0.13491508, 2e-5)
    shares = [terms[f"ab/preact_{k}"] / terms["ab/preact_3"] for k in (1, 2, 3)]
    np.testing.assert_allclose(shares, np.repeat([[0.25], [0.5], [1.0]], 4, 1), 1e-6)


@pytest.mark.parametrize("margin", [0.5, 1.0, 2.0])
def test_terms_are_the_formula_on_random_maps(margin):
    s, t = 2 * np.random.default_rng(0).normal(size=(2, 5, 4, 4, 3))
    got = terms_of([s], [t], margin=margin)["ab/preact_1"]
    np.testing.assert_allclose(got, formula(s, t, margin), 2e-5)


def test_only_the_teachers_sign_matters_and_zero_counts_as_off():
    scale = np.random.default_rng(0).uniform(0.1, 9, FT.shape)
    expected = terms_of([FS], [FT])["ab/preact_1"]
    got = terms_of([FS], [scale * FT])["ab/preact_1"]
    np.testing.assert_array_equal(got, expected)
    zero, off = (terms_of([FS], [t])["ab/preact_1"] for t in (0 * FS, 0 * FS - 1))
    np.testing.assert_array_equal(zero, off)


def test_zero_only_beyond_the_margin():
    beyond = np.where(FT > 0, 1.0, -1.0)
    assert (terms_of([beyond], [FT])["ab/preact_1"] == 0).all()
    assert (terms_of([0.99 * beyond], [FT])["ab/preact_1"] > 0).all()


def test_gradients_are_those_of_the_formula():
    s, t = 2 * np.random.default_rng(1).normal(size=(2, 2, 2, 2, 3))
    method = create_method("ab")
    x = tf.constant(s, "float32")
    with tf.GradientTape() as tape:
        tape.watch(x)
        term = method({"preact_1": x}, {"preact_1": t}, {})["ab/preact_1"]
    expected = reference.numeric_gradient(lambda z: formula(z, t).sum(), s)
    np.testing.assert_allclose(tape.gradient(term, x), expected, 1e-4, 1e-6)


def test_maps_of_one_shape_meet_without_a_connector():
    method = create_method("ab")
    shapes = {"preact_1": (None, 8, 8, 4), "preact_2": (None, 4, 4, 6)}
    method.build(shapes, {**shapes, "preact_1": (None, 8, 8, 5)})
    assert set(method.connect) == {"preact_1"}
    assert not method.connect["preact_1"].relu


def test_a_connector_is_a_convolution_and_batch_norm_without_relu():
    method = create_method("ab")
    t = reference.fill(0.9, [4, 4, 4, 2])
    method({"preact_1": FS}, {"preact_1": t}, {})
    kernel, bias = reference.fill(0.1, [1, 1, 3, 2]), np.array([0.3, -0.2])
    method.connect["preact_1"].conv.set_weights([kernel, bias])
    method.connect["preact_1"].norm.gamma.assign([2.0, 0.5])
    method.connect["preact_1"].norm.beta.assign([0.1, -0.4])
    got = method({"preact_1": FS}, {"preact_1": t}, {})["ab/preact_1"]
    x = FS @ kernel[0, 0] + bias
    x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    expected = formula(x * [2.0, 0.5] + [0.1, -0.4], t)
    np.testing.assert_allclose(got, expected, 1e-4)


def test_the_first_stage_leaves_the_exit_as_it_was(tiny, digits):
    images, labels = (part[:32] for part in digits)
    student = tiny((4,))
    distiller = Distiller(student, tiny((4,), 1 / 8), "ab")
    distiller.compile(SGD(0.01, l2=1e-3), jit_compile=False)
    before = {v.path: v.numpy() for v in student.trainable_variables}
    logs = [distiller.train_step((images, labels))["loss"] for _ in range(5)]
    assert logs[-1] < logs[0]
    for variable in student.trainable_variables:
        same = np.array_equal(before[variable.path], variable.numpy())
        assert same == ("exit_4" in variable.path), variable.path
    second = tiny((4,))
    copy_weights(student, second)
    assert Distiller(second, method="ce").method.variables == []


def test_refuses_what_does_not_fit():
    with pytest.raises(
        UserError, match="reads preact_k of the teacher, .* only exit_1"
    ):
        create_method("ab").output_pairs(["preact_1"], ["exit_1"])
