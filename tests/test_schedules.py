"""Learning rates by step and phases by epoch."""

import numpy as np
import pytest

from tf_mskd import UserError
from tf_mskd.training.schedules import (
    RestartedCosine,
    learning_rate,
    phase_ends,
    phase_of,
)


def rates(steps, kind, initial=0.1, epochs=10, steps_per_epoch=7, **arguments):
    rate = learning_rate(
        kind, initial, epochs=epochs, steps_per_epoch=steps_per_epoch, **arguments
    )
    return [float(rate(step)) if callable(rate) else rate for step in steps]


def test_step_falls_with_the_first_step_after_the_given_epochs():
    steps = [0, 27, 28, 41, 42, 69]  # 4 epochs are steps 0..27, 6 epochs 0..41
    expected = [0.1, 0.1, 0.02, 0.02, 0.004, 0.004]
    got = rates(steps, "step", drops=[4, 6], decay=0.2)
    np.testing.assert_allclose(got, expected, 1e-6)


def test_step_of_one_step_per_epoch():
    got = rates([0, 1, 2, 3], "step", steps_per_epoch=1, drops=[1, 3])
    np.testing.assert_allclose(got, [0.1, 0.01, 0.01, 0.001], 1e-6)


def test_constant_and_step_without_drops():
    assert rates([0, 69], "constant") == [0.1, 0.1]
    assert rates([0, 69], "step") == [0.1, 0.1]


def test_cosine_is_half_a_cosine():
    steps = np.array([0, 10, 35, 60, 70])
    expected = 0.1 * 0.5 * (1 + np.cos(np.pi * steps / 70))
    np.testing.assert_allclose(rates(steps, "cosine"), expected, 1e-5, 1e-8)


def test_cosine_after_a_warm_up():
    steps = np.array([0, 7, 14, 42, 70])
    rise = 0.1 * steps / 14
    fall = 0.1 * 0.5 * (1 + np.cos(np.pi * (steps - 14) / 56))
    expected = np.where(steps < 14, rise, fall)
    got = rates(steps, "cosine", warmup_epochs=2)
    np.testing.assert_allclose(got, expected, 1e-5, 1e-8)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"kind": "cosin"}, "Unknown learning-rate schedule 'cosin'; .* 'cosine'"),
        ({"kind": "step", "warmup_epochs": 1}, "warmup_epochs=1 needs .*=cosine"),
        ({"kind": "constant", "warmup_epochs": 1}, "warmup_epochs=1 needs"),
        ({"kind": "cosine", "warmup_epochs": 10}, "=10 must be less than epochs=10"),
    ],
)
def test_learning_rate_refuses(arguments, message):
    with pytest.raises(UserError, match=message):
        rates([0], **arguments)


@pytest.mark.parametrize(
    "epochs, phases, lengths, expected",
    [
        (40, 4, (), [10, 20, 30, 40]),
        (10, 4, (), [2, 5, 7, 10]),
        (4, 4, (), [1, 2, 3, 4]),
        (10, 3, (2, 3, 5), [2, 5, 10]),
        (7, 1, (), [7]),
    ],
)
def test_phase_ends(epochs, phases, lengths, expected):
    assert phase_ends(epochs, phases, lengths) == expected


def test_phase_of_changes_at_the_ends():
    assert [phase_of(e, [2, 5, 7]) for e in range(8)] == [1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(
    "epochs, phases, lengths, message",
    [
        (3, 4, (), "4 phases needs at least 4 epochs, got epochs=3"),
        (10, 2, (3, 6), "2 positive numbers that sum to epochs=10, got 3,6"),
        (10, 2, (1, 2, 7), "2 positive numbers .* got 1,2,7"),
        (10, 2, (0, 10), "positive .* got 0,10"),
    ],
)
def test_phase_ends_refuses(epochs, phases, lengths, message):
    with pytest.raises(UserError, match=message):
        phase_ends(epochs, phases, lengths)


def test_a_restarted_cosine_is_the_cosine_of_each_phase():
    rate = RestartedCosine(0.2, [14, 35, 21], warmup=7)
    got, expected = [float(rate(step)) for step in range(70)], []
    for epochs in (2, 5, 3):
        steps = range(7 * epochs)
        expected += rates(steps, "cosine", 0.2, epochs=epochs, warmup_epochs=1)
    np.testing.assert_array_equal(got, expected)
    again = RestartedCosine.from_config(rate.get_config())
    assert float(again(30)) == got[30]
    with pytest.raises(UserError, match="7 steps must be less than the shortest phase"):
        RestartedCosine(0.2, [14, 7], warmup=7)
