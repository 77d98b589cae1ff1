"""EED: the mean of all exits teaches each of them."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.reference import fill
from tf_mskd import SGD, Distiller, UserError
from tf_mskd.methods.eed import EED

VECTORS = {f"embedding_{k}": fill(0.2 * k, [4, 6]) for k in (1, 2, 3, 4)}
STUDENT = {**reference.STUDENT_EXITS, **VECTORS}
TARGETS = {"label": reference.LABELS}


def sums(method, student=STUDENT, targets=TARGETS):
    """Sum of the means of each kind of term."""
    student = {name: np.float32(value) for name, value in student.items()}
    totals = {}
    for name, term in method(student, {}, targets).items():
        kind = name.split("/")[0]
        totals[kind] = totals.get(kind, 0.0) + float(np.mean(term))
    return totals


def expected(student, form, ensemble, temperature):
    exits = [v for n, v in student.items() if n.startswith("exit")]
    vectors = [v for n, v in student.items() if n.startswith("embedding")]
    z, f = (
        np.mean(values, 0) if ensemble else values[-1] for values in (exits, vectors)
    )
    taught = slice(None) if ensemble else slice(-1)
    on_outputs, on_vectors = 0.0, 0.0
    for value in exits[taught]:
        if form == "mse":
            on_outputs += np.mean((value - z) ** 2)
        else:
            p = reference.softmax(z / temperature)
            log_q = reference.log_softmax(value / temperature)
            on_outputs += temperature**2 * -np.mean(np.sum(p * log_q, -1))
    for value in vectors[taught]:
        on_vectors += np.mean((value - f) ** 2 * ((value > 0) | (f > 0)))
    return on_outputs, on_vectors


def test_sums_of_the_fixture():
    totals = sums(EED())
    known = {"ce": 8.50035848, "eed": 0.82241725, "eed_feature": 0.06083338}
    for kind, value in known.items():
        np.testing.assert_allclose(totals[kind], value, 2e-5, err_msg=f"eed {kind}")
    weights = EED().default_weights
    total = sum(weights[kind] * value for kind, value in totals.items())
    np.testing.assert_allclose(total, 9.38360911, 2e-5)


def test_kl_form_of_the_fixture():
    method = EED(form="kl")
    weighted = method.default_weights["eed"] * sums(method)["eed"]
    np.testing.assert_allclose(weighted, 5.53050480, 2e-5)


@pytest.mark.parametrize("form", ["mse", "kl"])
@pytest.mark.parametrize("ensemble", [True, False])
def test_terms_are_the_formula_on_random_outputs(form, ensemble):
    rng = np.random.default_rng(3)
    student = {n: 2 * rng.normal(size=(8, v.shape[1])) for n, v in STUDENT.items()}
    targets = {"label": rng.integers(0, 5, 8)}
    method = EED(form=form, ensemble=ensemble, temperature=2.0)
    totals = sums(method, student, targets)
    outputs, vectors = expected(student, form, ensemble, 2.0)
    np.testing.assert_allclose(totals["eed"], outputs, 2e-5)
    np.testing.assert_allclose(totals["eed_feature"], vectors, 2e-5)


def test_identical_exits_teach_nothing():
    same = {n: STUDENT[f"{n[:-1]}4"] for n in STUDENT}
    totals = sums(EED(), same)
    assert totals["eed"] < 1e-10 and totals["eed_feature"] < 1e-10


def test_the_deepest_exit_is_taught_only_by_the_ensemble():
    student = {name: np.float32(value) for name, value in STUDENT.items()}
    with_mean = EED()(student, {}, TARGETS)
    without = EED(ensemble=False)(student, {}, TARGETS)
    assert set(with_mean) - set(without) == {"eed/exit_4", "eed_feature/embedding_4"}


def test_the_mean_gets_no_gradient():
    student = {n: tf.constant(v, "float32") for n, v in STUDENT.items()}
    method = EED()
    with tf.GradientTape() as tape:
        tape.watch(student)
        term = tf.reduce_sum(method(student, {}, TARGETS)["eed/exit_1"])
    gradients = tape.gradient(term, student)
    assert gradients["exit_2"] is None
    mean = np.mean([STUDENT[f"exit_{k}"] for k in (1, 2, 3, 4)], axis=0)
    known = 2 * (STUDENT["exit_1"] - mean) / 5
    np.testing.assert_allclose(gradients["exit_1"], known, 1e-4, 1e-6)


def test_entries_where_both_vectors_are_off_do_not_count():
    vectors = {"embedding_1": [[-1.0, -1.0]], "embedding_2": [[-3.0, 5.0]]}
    exits = {"exit_1": [[0.0, 0.0]], "exit_2": [[0.0, 0.0]]}
    student = {n: np.float32(v) for n, v in {**exits, **vectors}.items()}
    terms = EED()(student, {}, {"label": np.array([0])})
    np.testing.assert_allclose(terms["eed_feature/embedding_1"], [4.5])  # (0 + 9) / 2


def test_a_phase_takes_the_mean_of_its_own_exits(tiny, digits):
    from tf_mskd import create_model

    student = create_model(
        "resnet10", 10, exits="all", width=1 / 16, input_shape=(8, 8, 1)
    )
    distiller = Distiller(student, method="eed", phases="progressive")
    distiller.compile(SGD(0.05), jit_compile=False)
    logs = distiller.train_step((digits[0][:8], digits[1][:8]))
    assert float(logs["eed/exit_1"]) == 0.0
    distiller.set_phase(2)
    distiller.reset_metrics()
    logs = distiller.train_step((digits[0][:8], digits[1][:8]))
    assert float(logs["eed/exit_1"]) > 0 and "eed/exit_3" not in logs
    np.testing.assert_allclose(logs["eed/exit_1"], logs["eed/exit_2"], 1e-4)


def test_vectors_of_several_widths_are_refused(tiny):
    message = (
        "widths are embedding_2 8, embedding_4 32: build it with exit_head='dense'"
    )
    with pytest.raises(UserError, match=message):
        Distiller(tiny((2, 4)), method="eed")
