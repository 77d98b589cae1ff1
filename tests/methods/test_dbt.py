"""Phuong-Lampert: the last exit as teacher, and its rising temperature."""

import numpy as np
import pytest

from tests import reference
from tf_mskd import SGD, Distiller
from tf_mskd.methods.common import registry
from tf_mskd.methods.common.create import create_method
from tf_mskd.methods.dbt import DBT
from tf_mskd.training import checkpoint

EXITS = {n: np.float32(z) for n, z in reference.STUDENT_EXITS.items()}
TARGETS = {"label": reference.LABELS}


def loss(method, exits=EXITS, targets=TARGETS):
    terms = method(exits, {}, targets)
    weight = {n: method.default_weights[n.split("/")[0]] for n in terms}
    return sum(weight[name] * np.mean(term) for name, term in terms.items())


def expected(exits, labels, temperature, share=0.5, scale=1.0):
    last = list(exits)[-1]
    p = reference.softmax(exits[last] / temperature)
    total = 0.0
    for name, z in exits.items():
        total += (1 - share) * reference.cross_entropy(labels, z).mean()
        if name != last:
            log_q = reference.log_softmax(z / temperature)
            total += share * temperature**2 * -np.sum(p * log_q, -1).mean()
    return scale * total


def test_constant_temperature_on_the_fixture():
    method = DBT(temperature=4.0)
    np.testing.assert_allclose(loss(method), 41.77126927, 2e-5)
    assert not method.variables


def test_first_rising_step_on_the_fixture():
    method = DBT()
    np.testing.assert_allclose(loss(method), 6.07940041, 2e-5)
    highest = reference.softmax(reference.STUDENT_EXITS["exit_4"]).max(-1).mean()
    np.testing.assert_allclose(highest, 0.51455050, 1e-7)
    np.testing.assert_allclose(method.current.numpy(), 1.05, 1e-6)


def test_the_step_uses_the_temperature_before_its_own_rise():
    method = DBT()
    first, second = loss(method), loss(method)
    labels = reference.LABELS
    np.testing.assert_allclose(first, expected(EXITS, labels, 1.0), 2e-5)
    np.testing.assert_allclose(second, expected(EXITS, labels, 1.05), 2e-5)


def test_the_temperature_stops_where_the_last_exit_is_unsure():
    method = DBT()
    sharp = {name: 3 * z for name, z in EXITS.items()}
    reached = []
    for _ in range(40):
        loss(method, sharp)
        reached.append(float(method.current.numpy()))
    np.testing.assert_allclose(reached[23:], 1.05**24, 2e-5)
    np.testing.assert_allclose(reached[22], 1.05**23, 2e-5)
    np.testing.assert_allclose(1.05**24, 3.22509994, 1e-8)


def test_the_temperature_never_falls():
    method = DBT()
    loss(method, {name: 9 * z for name, z in EXITS.items()})
    risen = method.current.numpy()
    loss(method, {name: 0 * z for name, z in EXITS.items()})
    assert method.current.numpy() == risen > 1


@pytest.mark.parametrize("temperature, scale", [(1.0, 1.0), (4.0, 2.5), (2.0, 0.3)])
def test_loss_is_the_formula_on_random_outputs(temperature, scale):
    rng = np.random.default_rng(2)
    exits = {f"exit_{k}": 3 * rng.normal(size=(8, 7)) for k in (1, 3, 4)}
    labels = rng.integers(0, 7, 8)
    method = DBT(temperature=temperature, scale=scale)
    known = expected(exits, labels, temperature, scale=scale)
    np.testing.assert_allclose(loss(method, exits, {"label": labels}), known, 2e-5)


def test_without_distillation_it_is_the_sum_of_the_labels_terms():
    method = DBT(temperature=4.0)
    terms = method(EXITS, {}, TARGETS)
    labels = sum(np.mean(t) for name, t in terms.items() if name.startswith("ce/"))
    np.testing.assert_allclose(labels, 8.50035848, 2e-5)


def test_the_temperature_is_in_the_checkpoint_of_a_run(tiny, digits, tmp_path):
    def make():
        distiller = Distiller(tiny((2, 4)), method="dbt")
        distiller.compile(SGD(0.0), jit_compile=False)
        distiller.optimizer.build(distiller.trainable_variables)
        return distiller

    first, again = make(), make()
    first.method.current.assign(1.3)
    checkpoints = checkpoint.CheckpointManager(tmp_path)
    checkpoints.write(1, first.state_variables, {})
    assert again.method.current.numpy() == 1.0
    checkpoints.restore(again.state_variables)
    np.testing.assert_allclose(again.method.current.numpy(), 1.3, 1e-6)


def test_a_compiled_step_raises_the_temperature_once(tiny, digits):
    import tensorflow as tf

    distiller = Distiller(tiny((2, 4)), method="dbt")
    dense = distiller.student.get_layer("exit_4")
    dense.kernel.assign(100 * dense.kernel)  # so confident that T has to rise
    distiller.compile(SGD(0.0), jit_compile=False)
    distiller.optimizer.build(distiller.trainable_variables)
    step = tf.function(tf.autograph.experimental.do_not_convert(distiller.train_step))
    for count in (1, 2, 3):
        step((digits[0][:8], digits[1][:8]))
        np.testing.assert_allclose(distiller.method.current, 1.05**count, 1e-5)


def test_its_former_name_still_creates_it_and_is_not_listed():
    method = create_method("phuong", temperature=4.0)
    assert type(method) is DBT and method.registry_name == "dbt"
    assert create_method("phuong,ce").registry_name == "dbt,ce"
    assert "phuong" not in registry.available_methods()
