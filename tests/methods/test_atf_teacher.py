"""ATF's teacher side as a run: the large network learns, the small one rests."""

import numpy as np

from tf_mskd import SGD, Distiller


def test_the_large_network_comes_closer_to_the_small_one(tiny, digits):
    images, labels = digits[0][:32], digits[1][:32]
    large, small = tiny((2,), 1 / 8), tiny((2,))
    fixed = [v.numpy() for v in small.variables]
    distiller = Distiller(large, small, "atf_teacher", term_weights={"ce": 0.0})
    distiller.compile(SGD(0.05), jit_compile=False)
    logs = distiller.fit(images, labels, epochs=6, batch_size=32, verbose=0).history
    gap = logs["atf_teacher/exit_2"]
    assert gap[-1] < 0.7 * gap[0], gap
    for before, variable in zip(fixed, small.variables, strict=True):
        np.testing.assert_array_equal(before, variable.numpy())
