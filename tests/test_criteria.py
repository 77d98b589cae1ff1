"""Exit criteria: known answers, references, extremes, graph and TFLite."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import UserError
from tf_mskd.early_exit.criteria import (
    ANSWERS,
    CRITERIA,
    add_exit,
    answer_of,
    answers_so_far,
    confidence,
)
from tf_mskd.tasks import ensemble

EXITS = list(reference.STUDENT_EXITS.values())
PROBS = [reference.softmax(z) for z in EXITS]


def of_criterion(criterion, probs):
    """Float64, example by example, from the definitions."""
    scores = []
    for b in range(len(probs[0])):
        p = np.sort(np.asarray(probs[-1][b], np.float64))[::-1]
        if criterion == "max_probability":
            scores.append(p[0])
        elif criterion == "margin":
            scores.append(p[0] - p[1])
        elif criterion == "entropy":
            entropy = -sum(v * np.log(v) for v in p if v > 0)
            scores.append(1 - entropy / np.log(len(p)))
        else:
            classes = [np.argmax(q[b]) for q in probs][::-1]
            run = 1
            while run < len(classes) and classes[run] == classes[0]:
                run += 1
            scores.append(1 - 1 / run)
    return np.array(scores)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_criteria_against_the_reference(criterion, k):
    got = np.asarray(confidence(criterion, PROBS[:k]))
    assert got.dtype == np.float32 and got.shape == (4,)
    np.testing.assert_allclose(
        got, of_criterion(criterion, PROBS[:k]), 1e-5, 1e-6, err_msg=criterion
    )


def test_criteria_by_hand():
    probs = [np.array([[0.5, 0.5, 0.0, 0.0], [0.7, 0.1, 0.1, 0.1], [0, 0, 0, 1.0]])]
    by_hand = {
        "max_probability": [0.5, 0.7, 1.0],
        "margin": [0.0, 0.6, 1.0],
        "entropy": [0.5, 0.3216, 1.0],  # log2(2) / log2(4), 1.3568 bits / 2, 0 bits
        "patience": [0.0, 0.0, 0.0],
    }
    for criterion, expected in by_hand.items():
        got = confidence(criterion, probs)
        np.testing.assert_allclose(got, expected, atol=1e-4, err_msg=criterion)


def test_patience_counts_the_run_that_ends_here():
    classes = [0, 1, 1, 1, 0, 0]
    probs = [np.eye(2)[[c]] * 0.8 + 0.1 for c in classes]
    scores = [float(confidence("patience", probs[: k + 1])[0]) for k in range(6)]
    expected = [1 - 1 / run for run in (1, 1, 2, 3, 1, 2)]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_under_0_all_examples_exit_and_above_1_none(criterion):
    rng = np.random.default_rng(0)
    random = reference.softmax(rng.normal(size=(300, 100)) * 10)
    even, certain = np.full((50, 100), 0.01), np.eye(100)
    for p in (
        random,
        even,
        certain,
        random.astype(np.float16),
        even.astype(np.float32),
    ):
        for k in (1, 5):
            scores = np.asarray(confidence(criterion, [p] * k))
            assert (scores >= 0).all() and (scores <= 1).all(), f"{criterion}: {scores}"


@pytest.mark.parametrize("temperatures", [[1.0] * 4, [0.5, 1.0, 1.5, 3.0]])
@pytest.mark.parametrize("k", [1, 3, 4])
def test_answers_against_the_reference(temperatures, k):
    scaled = [z / t for z, t in zip(EXITS, temperatures, strict=True)][:k]
    expected = {
        "ensemble": reference.softmax(np.mean(scaled, 0)),
        "exit": reference.softmax(scaled[-1]),
    }
    for kind in ANSWERS:
        got = answers_so_far(EXITS[:k], temperatures[:k], kind)
        np.testing.assert_allclose(got, expected[kind], 1e-5, 1e-6, err_msg=kind)


def test_a_full_pass_is_the_librarys_ensemble():
    scores = ensemble.ensemble_scores(reference.STUDENT_EXITS, "logits")
    got = answers_so_far(EXITS, [1.0] * 4)
    np.testing.assert_array_equal(np.argmax(got, -1), np.argmax(scores, -1))
    np.testing.assert_allclose(got, reference.softmax(scores), 1e-5, 1e-6)


@pytest.mark.filterwarnings(r"ignore:\s*Warning. tf.lite.Interpreter")
def test_tflite_gives_the_same_with_its_own_ops_alone():
    class Criteria(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([4, 4, 5])])
        def run(self, exits):
            logits = tf.unstack(exits)
            probs = [answers_so_far(logits[:k], [1.5] * k) for k in range(1, 5)]
            return {criterion: confidence(criterion, probs) for criterion in CRITERIA}

    module = Criteria()
    exits = np.array(EXITS, np.float32)
    function = module.run.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    got = interpreter.get_signature_runner()(exits=exits)
    probs = [answers_so_far(list(exits[:k]), [1.5] * k) for k in range(1, 5)]
    for criterion in CRITERIA:
        expected = np.asarray(confidence(criterion, probs))
        np.testing.assert_allclose(module.run(exits)[criterion], expected, 1e-5, 1e-6)
        np.testing.assert_allclose(
            got[criterion], expected, 1e-5, 1e-6, err_msg=criterion
        )


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_sum_carried_from_exit_to_exit_gives_every_answer(answer):
    scales, total = [0.5, 1.0, 2.0, 3.0], None
    scaled = [np.asarray(z, np.float64) / t for z, t in zip(EXITS, scales, strict=True)]
    for k in range(1, 5):
        total = add_exit(total, EXITS[k - 1], scales[k - 1], answer)
        used = np.mean(scaled[:k], axis=0) if answer == "ensemble" else scaled[k - 1]
        got = answer_of(total, k, answer)
        np.testing.assert_allclose(got, reference.softmax(used), atol=1e-6)
        whole = answers_so_far(EXITS[:k], scales[:k], answer)
        np.testing.assert_array_equal(got, whole)


def test_two_classes_alike_have_no_margin():
    tied = [[[0.5, 0.5, 0.0], [0.4, 0.2, 0.4], [0.25, 0.25, 0.5]]]
    np.testing.assert_array_equal(confidence("margin", tied), [0.0, 0.0, 0.25])


def test_mistakes_are_refused():
    with pytest.raises(
        UserError, match="Unknown exit criterion 'entropie'; .* 'entropy'"
    ):
        confidence("entropie", PROBS)
    with pytest.raises(UserError, match="probabilities of at least one exit, got none"):
        confidence("margin", [])
    with pytest.raises(UserError, match="Unknown answer 'ensembles'; .* 'ensemble'"):
        answers_so_far(EXITS, [1.0] * 4, "ensembles")
    with pytest.raises(UserError, match="one temperature for each, got 1 for 4"):
        answers_so_far(EXITS, [1.0])
