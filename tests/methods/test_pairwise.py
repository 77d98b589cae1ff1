"""Pairwise: cosines of all pairs of positions; known answers and pooling."""

import numpy as np
import pytest

from tests.methods.maps import STUDENT, TEACHER, close, terms_of
from tf_mskd import UserError
from tf_mskd.methods.common.create import create_method
from tf_mskd.methods.pairwise import affinity


def test_known_answers():
    gap = np.square(affinity(STUDENT) - affinity(TEACHER))
    close(np.mean(gap), 0.04408434)
    _, terms = terms_of("pairwise", pool=0.0)
    close(np.mean(terms["pairwise/feature_1"]), 0.04408434)
    close(np.mean(terms["pixel/exit_1"]), 0.12368938)


def test_cosines_by_hand_and_pooled_cells():
    x = np.array([[[[3.0, 4.0], [4.0, 3.0]]]])
    close(affinity(x)[0], [[1.0, 0.96], [0.96, 1.0]])
    assert affinity(STUDENT, 0.5).shape == (2, 4, 4)  # a grid of 2x2
    assert affinity(STUDENT, 1.0).shape == (2, 1, 1)
    close(affinity(7 * STUDENT), affinity(STUDENT))


def test_refused():
    with pytest.raises(UserError, match=r"pool must be in \[0, 1\], got 2"):
        create_method("pairwise", pool=2)
