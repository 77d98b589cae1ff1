"""SGD against a float64 loop of its formula."""

import keras
import numpy as np
import pytest

from tests import reference
from tf_mskd import SGD

START = np.array([[0.5, -1.0], [2.0, 0.1]])
GRADIENTS = [reference.fill(k, [2, 2]) for k in range(6)]
RATES = [0.1, 0.1, 0.1, 0.01, 0.01, 0.01]
CASES = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "l2": {"l2": 0.05},
    "all": {"momentum": 0.9, "nesterov": True, "l2": 0.05},
}


def falling():
    schedules = keras.optimizers.schedules
    return schedules.PiecewiseConstantDecay([2], [0.1, 0.01])


def run(optimizer, scale=1.0):
    variable = keras.Variable(START.astype(np.float32))
    for gradient in GRADIENTS:
        scaled = keras.ops.convert_to_tensor(scale * gradient, "float32")
        optimizer.apply([scaled], [variable])
    return variable.numpy()


@pytest.mark.parametrize("case", CASES)
def test_six_steps_with_a_fall_of_the_rate(case):
    arguments = {"momentum": 0.0, **CASES[case]}
    expected = reference.sgd(START, GRADIENTS, RATES, **arguments)
    got = run(SGD(falling(), **arguments))
    np.testing.assert_allclose(got, expected, 1e-5, 1e-6, err_msg=case)


def test_the_rate_stays_outside_the_velocity():
    """With the rate inside, as Keras has it, the steps after a fall are larger."""
    ours = run(SGD(falling(), momentum=0.9))
    keras_way = run(keras.optimizers.SGD(falling(), momentum=0.9))
    assert np.abs(ours - keras_way).max() > 1e-2


def test_inside_a_loss_scale_optimizer():
    arguments = {"momentum": 0.9, "l2": 0.05}
    inner = SGD(falling(), **arguments)
    outer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
    expected = reference.sgd(START, GRADIENTS, RATES, **arguments)
    np.testing.assert_allclose(run(outer, 1024.0), expected, 1e-5, 1e-6)


def test_config_round_trip():
    arguments = {"momentum": 0.8, "nesterov": True, "l2": 0.05}
    saved = keras.optimizers.serialize(SGD(falling(), **arguments))
    again = keras.optimizers.deserialize(saved)
    assert isinstance(again, SGD)
    expected = reference.sgd(START, GRADIENTS, RATES, **arguments)
    np.testing.assert_allclose(run(again), expected, 1e-5, 1e-6)


def test_defaults_are_those_of_the_benchmark():
    config = SGD().get_config()
    names = ("learning_rate", "momentum", "nesterov", "l2")
    got = [config[name] for name in names]
    np.testing.assert_allclose(got, [0.05, 0.9, False, 0.0], 1e-6)
