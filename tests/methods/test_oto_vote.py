"""OtO whose vote learns too: known answers, its terms, phases."""

import numpy as np
import pytest

import tf_mskd
from tests import reference
from tf_mskd import OtO, UserError
from tf_mskd.methods.oto_vote import OtOVote

LABEL = {"label": reference.LABELS}


def mean_of(exits):
    return np.mean([exits[f"exit_{k}"] for k in (1, 2, 3, 4)], axis=0)


def test_fixture():
    exits = reference.STUDENT_EXITS, reference.TEACHER_EXITS
    terms = OtOVote(temperature=3.0)(*exits, LABEL)
    plain = OtO(temperature=3.0)(*exits, LABEL)
    assert set(terms) == {*plain, "vote_kd/exit_4", "vote_ce/exit_4"}
    for name, value in plain.items():
        np.testing.assert_array_equal(terms[name], value)
    own, guide = map(mean_of, exits)
    expected = reference.softened_kl(guide, own, 3.0)
    np.testing.assert_allclose(terms["vote_kd/exit_4"], expected, 2e-5)
    expected = reference.cross_entropy(reference.LABELS, own)
    np.testing.assert_allclose(terms["vote_ce/exit_4"], expected, 2e-5)


def test_known_answer_of_the_votes():
    """The votes of the first k exits of each, k = 1..4, T 3: 0.73372309 in sum."""
    total = 0.0
    for k in (1, 2, 3, 4):
        names = [f"exit_{j}" for j in range(1, k + 1)]
        parts = (reference.STUDENT_EXITS, reference.TEACHER_EXITS)
        exits = [{name: part[name] for name in names} for part in parts]
        terms = OtOVote(temperature=3.0)(*exits, LABEL)
        total += float(np.mean(terms[f"vote_kd/exit_{k}"]))
    np.testing.assert_allclose(total, 0.73372309, 2e-5)


def test_weighted_sum_of_the_default():
    """Every exit at half and half, and the vote as four exits."""
    exits, method = (reference.STUDENT_EXITS, reference.TEACHER_EXITS), OtOVote()
    terms = method(*exits, LABEL)
    weights = method.default_weights
    got = sum(weights[n.split("/")[0]] * float(np.mean(t)) for n, t in terms.items())
    pairs = [(exits[1][name], exits[0][name]) for name in exits[0]]
    expected = 0.0
    for guide, own in (*pairs, *4 * [(mean_of(exits[1]), mean_of(exits[0]))]):
        kd = reference.softened_kl(guide, own, 3.0)
        ce = reference.cross_entropy(reference.LABELS, own)
        expected += 0.5 * float(np.mean(kd)) + 0.5 * float(np.mean(ce))
    np.testing.assert_allclose(got, expected, 2e-5)


def test_equal_votes_of_unequal_exits_teach_nothing_more():
    student = {"exit_1": reference.STUDENT + 1e-3, "exit_2": reference.TEACHER}
    teacher = {"exit_1": reference.TEACHER, "exit_2": reference.STUDENT + 1e-3}
    terms = OtOVote()(student, teacher, LABEL)
    np.testing.assert_allclose(terms["vote_kd/exit_2"], 0, atol=1e-5)
    assert float(np.mean(terms["kd/exit_2"])) > 0.1


def test_the_vote_learns_in_the_last_phase(tiny, digits):
    images, labels = digits
    distiller = tf_mskd.Distiller(
        tiny(), tiny((1, 2, 3)), "oto_vote", phases="progressive"
    )
    distiller.compile(tf_mskd.SGD(0.01))
    batches = {"batch_size": 32, "verbose": 0}
    logs = distiller.fit(images[:32], labels[:32], **batches).history
    assert not any(name.startswith("vote") for name in logs)
    distiller.set_phase(2)
    logs = distiller.fit(images[:32], labels[:32], **batches).history
    assert {"vote_kd/exit_2", "vote_ce/exit_2"} <= set(logs)


def test_standardised_logits_are_refused():
    with pytest.raises(UserError, match="compares raw logits"):
        OtOVote(preset="lskd")
