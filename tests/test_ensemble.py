"""The ensemble of the exits: fixture, reference, fitted weights, errors."""

import numpy as np
import pytest

from tests import reference
from tf_mskd import UserError
from tf_mskd.tasks import ensemble
from tf_mskd.tasks.classification import Classification, accuracies
from tf_mskd.tasks.meter import Meter, validation_logs


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_ensemble_of_the_fixture(kind):
    scores = np.asarray(ensemble.ensemble_scores(reference.STUDENT_EXITS, kind))
    assert scores.argmax(-1).tolist() == [1, 4, 0, 4], f"{kind}: {scores}"
    expected = reference.ensemble_scores(reference.STUDENT_EXITS, kind)
    np.testing.assert_allclose(scores, expected, 1e-5, 1e-6, err_msg=kind)
    assert scores.dtype == np.float32


def test_the_two_ensembles_differ_where_one_exit_is_loud():
    outputs = {"exit_1": [[9.0, 0.0]], "exit_2": [[0.0, 4.0]], "exit_3": [[0.0, 4.0]]}
    assert np.argmax(ensemble.ensemble_scores(outputs, "logits")) == 0
    assert np.argmax(ensemble.ensemble_scores(outputs, "probabilities")) == 1


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_ensemble_with_weights(kind):
    outputs = {n: reference.STUDENT_EXITS[n] for n in ("exit_1", "exit_2")}
    got = ensemble.ensemble_scores(outputs, kind, {"exit_1": 0.25, "exit_2": 2.0})
    change = reference.softmax if kind == "probabilities" else np.asarray
    expected = 0.25 * change(outputs["exit_1"]) + 2.0 * change(outputs["exit_2"])
    np.testing.assert_allclose(got, expected, 1e-5, 1e-6)


def test_ensemble_refuses():
    with pytest.raises(UserError, match="Unknown ensemble 'logit'; .* 'logits'"):
        ensemble.ensemble_scores(reference.STUDENT_EXITS, "logit")
    with pytest.raises(UserError, match="at least one exit, got none"):
        ensemble.ensemble_scores({})


def test_subsets_lists_each_once_small_ones_first():
    names = ["a", "b", "c"]
    expected = [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")]
    assert ensemble.subsets(names) == [*expected, ("a", "b", "c")]
    assert len(set(ensemble.subsets("abcd"))) == 2**4 - 1


def held_out(seed=0, size=400, classes=5):
    """One good exit and two of noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size)
    noise = rng.normal(size=(3, size, classes))
    good = 2.0 * np.eye(classes)[labels] + noise[0]
    return {"exit_1": noise[1], "exit_2": good, "exit_3": noise[2]}, labels


def likelihood(outputs, labels, weights):
    scores = sum(weights[name] * outputs[name] for name in outputs)
    return reference.cross_entropy(labels, scores).mean()


def test_fit_weights_finds_the_good_exit():
    outputs, labels = held_out()
    weights = ensemble.fit_weights(outputs, labels)
    assert weights["exit_2"] > 1.0, weights
    assert max(weights["exit_1"], weights["exit_3"]) < 0.15, weights
    table = accuracies(outputs, labels, weights)
    assert table["ensemble_fitted"] > table["ensemble"] + 0.1, table


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_fit_weights_is_no_worse_than_the_mean_on_its_data(seed, scale):
    outputs, labels = held_out(seed, size=60)
    outputs = {name: scale * z for name, z in outputs.items()}
    weights = ensemble.fit_weights(outputs, labels)
    fitted = likelihood(outputs, labels, weights)
    mean = likelihood(outputs, labels, dict.fromkeys(outputs, 1 / 3))
    assert fitted <= mean + 1e-9, f"fitted {fitted}, mean {mean}"
    assert min(weights.values()) >= 0, weights


def test_fit_weights_is_a_minimum_of_its_objective():
    outputs, labels = held_out(size=80)
    weights = ensemble.fit_weights(outputs, labels, l2=0.05)

    def objective(w):
        pull = 0.05 * sum((v - 1 / 3) ** 2 for v in w.values())
        return likelihood(outputs, labels, w) + pull

    best = objective(weights)
    for name in outputs:
        for shift in (-0.02, 0.02):
            moved = {**weights, name: max(weights[name] + shift, 0.0)}
            assert objective(moved) >= best - 1e-9, f"{name}: {moved} beats {weights}"


def test_fit_weights_repeats_and_falls_back_to_the_mean():
    outputs, labels = held_out()
    assert ensemble.fit_weights(outputs, labels) == ensemble.fit_weights(
        outputs, labels
    )
    silent = {name: np.zeros((4, 3)) for name in ("exit_1", "exit_2")}
    weights = ensemble.fit_weights(silent, [0, 1, 2, 0])
    np.testing.assert_allclose(list(weights.values()), [0.5, 0.5], atol=1e-6)


def measured(outputs, labels, kind):
    """In two batches: what a meter adds up is that of the whole."""
    meter = Meter(Classification(), kind)
    for rows in (slice(0, 3), slice(3, None)):
        meter.update({n: v[rows] for n, v in outputs.items()}, labels[rows])
    return meter


def test_accuracies_are_fractions_by_name():
    outputs = {
        "exit_1": np.array([[9.0, 0], [1, 0], [1, 0], [1, 0]]),
        "exit_2": np.array([[0.0, 4], [0, 3], [0, 3], [0, 3]]),
    }
    outputs["exit_3"] = outputs["exit_2"]
    labels = [0, 1, 1, 0]
    weights = {"exit_1": 1.0, "exit_2": 0.0, "exit_3": 0.0}
    exits = {"exit_1": 0.5, "exit_2": 0.5, "exit_3": 0.5}
    logits, probabilities, fitted = 0.75, 0.5, 0.5
    assert accuracies(outputs, labels, weights) == {
        **exits,
        "ensemble": logits,
        "ensemble_probabilities": probabilities,
        "ensemble_fitted": fitted,
    }
    assert accuracies(outputs, labels, kind="probabilities") == {
        **exits,
        "ensemble": probabilities,
        "ensemble_logits": logits,
    }


def test_the_logs_of_a_validation_name_the_ensemble_of_the_run():
    outputs, labels = held_out()
    for kind in ("logits", "probabilities"):
        scores = reference.ensemble_scores(outputs, kind)
        logs = validation_logs(measured(outputs, labels, kind))
        expected = np.mean(scores.argmax(-1) == labels)
        assert abs(logs["val_ensemble_accuracy"] - expected) < 1e-12
        assert logs["val_exit_2_accuracy"] > 0.5 and len(logs) == 5
