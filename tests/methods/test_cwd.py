"""CWD: distributions over positions, channel by channel; known answers."""

import numpy as np
import pytest

from tests import reference
from tests.methods.maps import STUDENT, TEACHER, close, terms_of
from tf_mskd import UserError
from tf_mskd.methods.common.create import create_method
from tf_mskd.methods.cwd import channel_kl


@pytest.mark.parametrize(
    "temperature, expected", [(1.0, 0.29330438), (4.0, 0.70386809)]
)
def test_known_answers(temperature, expected):
    close(np.mean(channel_kl(TEACHER, STUDENT, temperature)), expected)
    _, terms = terms_of("cwd", temperature=temperature)
    close(np.mean(terms["cwd/exit_1"]), expected)
    assert list(terms) == ["ce/exit_1", "cwd/exit_1"]


def test_by_hand_in_float64():
    total = 0.0
    for t, s in zip(TEACHER, STUDENT, strict=True):
        for c in range(3):
            pair = t[..., c].reshape(1, -1), s[..., c].reshape(1, -1)
            total += reference.softened_kl(*pair, 4.0).item() / 3
    close(np.sum(channel_kl(TEACHER, STUDENT, 4.0)), total)


def test_it_is_0_for_equal_maps_and_blind_to_a_channel_s_offset():
    close(channel_kl(TEACHER, TEACHER + [1.0, -2.0, 3.0], 4.0) + 1, [1.0, 1.0])


def test_refused():
    with pytest.raises(UserError, match="temperature must be > 0"):
        create_method("cwd", temperature=0.0)
    with pytest.raises(UserError, match="is made for the task segmentation"):
        from tf_mskd.tasks import create_task

        create_method("cwd").set_task(create_task("classification"))
