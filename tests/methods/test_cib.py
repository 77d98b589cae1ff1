"""CIB against known answers (float64 NumPy), and the gradient of a code."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tf_mskd import UserError
from tf_mskd.methods.cib import CIB
from tf_mskd.methods.common import codes

RTOL = 2e-5


def fill(a, shape):
    return np.sin(a + 0.7 * np.arange(np.prod(shape))).reshape(shape)


S1, S2 = (2 * fill(a, (4, 8)) for a in (0.3, 0.5))


def interleaved(one, other):
    return np.stack([one, other], 1).reshape(-1, one.shape[1]).astype("float32")


def test_the_terms_of_cib():
    terms = CIB()({"exit_1": interleaved(S1, S2)}, {}, {})
    nt_xent, bits = (
        float(terms["nt_xent/exit_1"]),
        float(ops.mean(terms["bits/exit_1"])),
    )
    assert nt_xent == pytest.approx(0.96572502, rel=RTOL)
    assert bits == pytest.approx(0.06619545, rel=RTOL)
    assert nt_xent + 0.001 * bits == pytest.approx(0.96579122, rel=RTOL)


def test_a_code_has_the_gradient_of_the_sigmoid():
    h = tf.Variable([[0.3, -2.0]])
    with tf.GradientTape() as tape:
        code = codes.straight_through(h)
    p = 1 / (1 + np.exp(-h.numpy()))
    np.testing.assert_allclose(tape.gradient(code, h), p * (1 - p), rtol=1e-5)


def test_equal_views_have_equal_bits():
    terms = CIB()({"exit_1": interleaved(S1, S1)}, {}, {})
    assert np.abs(terms["bits/exit_1"].numpy()).max() < 1e-7


def test_a_batch_of_one_is_one_line():
    with pytest.raises(UserError, match="a batch of one"):
        CIB()({"exit_1": interleaved(S1, S2)[:2]}, {}, {})
