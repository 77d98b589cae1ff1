"""CE: labels at every exit."""

import numpy as np

from tests import reference
from tf_mskd import CE


def test_sum_over_the_fixture_exits():
    terms = CE()(reference.STUDENT_EXITS, {}, {"label": reference.LABELS})
    assert list(terms) == [f"ce/exit_{k}" for k in (1, 2, 3, 4)]
    total = sum(float(np.mean(term)) for term in terms.values())
    np.testing.assert_allclose(total, 8.50035848, 2e-5, err_msg="ce")


def test_needs_no_teacher():
    assert not CE().needs_teacher
    assert CE().output_pairs(["exit_1"], ["exit_1"]) == {}
    assert CE.default_weights == {"ce": 1.0}
