"""BRCD against known answers (float64 NumPy) and what must not matter."""

import numpy as np
import pytest
from keras import ops

from tf_mskd import UserError
from tf_mskd.methods.brcd import BRCD
from tf_mskd.methods.common import codes

RTOL = 2e-5


def fill(a, shape):
    return np.sin(a + 0.7 * np.arange(np.prod(shape))).reshape(shape)


S1, S2 = (2 * fill(a, (4, 8)) for a in (0.3, 0.5))
T1, T2 = (3 * fill(a, (4, 8)) for a in (0.9, 2.0))
CENTRES = 0.5 * np.where(T1 >= 0, 1.0, -1.0)[[0, 1, 3]] + 0.4 * fill(0.2, (3, 8))
A, B = np.array([0, 1, 1, 2]), np.array([0, 0, 0, 1])


def interleaved(one, other):
    return np.stack([one, other], 1).reshape(-1, one.shape[1]).astype("float32")


def brcd(centres=CENTRES, cluster=A, **arguments):
    method = BRCD(num_examples=4, num_clusters=len(centres), **arguments)
    shape = {"exit_1": (None, 8)}
    method.build(shape, shape)
    method.set_centres(centres)
    method.cluster.assign(cluster)
    return method


def contrast(method, second=T2, cluster=A):
    return float(method.contrast(S1, T1, second, np.asarray(cluster, "int32")))


def test_the_clusters_of_the_second_view_and_the_masks():
    method = brcd()
    assert method._nearest(codes.signs(T2)).numpy().tolist() == B.tolist()
    masked = [np.flatnonzero(row == 0).tolist() for row in method.mask.numpy()]
    assert masked == [[4], [0, 5], []]


def test_the_contrast_of_brcd():
    assert contrast(brcd()) == pytest.approx(0.95096788, rel=RTOL)


def test_the_terms_come_through_the_whole_method():
    targets = {"index": np.repeat(np.arange(4), 2)}
    student = {"exit_1": interleaved(S1, S2)}
    terms = brcd()(student, {"exit_1": interleaved(T1, T2)}, targets)
    assert list(terms) == ["nt_xent/exit_1", "bits/exit_1", "brcd/exit_1"]
    assert float(terms["brcd/exit_1"]) == pytest.approx(0.95096788, rel=RTOL)


def by_hand(mask, own, seen, alpha=0.8, tau=0.3):
    """The contrast in float64, with clusters of the second view as told."""
    s, t, u = (np.where(h >= 0, 1.0, -1.0) for h in (S1, T1, T2))
    anchor = (s * t).sum(1) / 8 / tau
    z = np.concatenate([s * mask, u * mask])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    scores, cluster, total = z @ z.T / tau, np.concatenate([own, seen]), 0.0
    for r in range(8):
        i, pair = r % 4, (r + 4) % 8
        a = alpha if own[i] == seen[i] else 1.0
        p = a * anchor[i] + (1 - a) * scores[r, pair]
        kept = [q for q in range(8) if q not in (r, pair) and cluster[q] != cluster[r]]
        total += np.log(np.exp(p) + np.exp(scores[r, kept]).sum()) - p
    return total / 8


@pytest.mark.parametrize(
    ("own", "seen", "value"),
    [(A, A, 1.55693023), (np.arange(4), np.arange(4), 1.75346290)],
)
def test_the_contrast_without_a_mask(own, seen, value, monkeypatch):
    centres = fill(0.4, (4, 8))
    method = brcd(centres)
    method.mask.assign(np.ones((4, 8)))
    monkeypatch.setattr(method, "_nearest", lambda made: ops.cast(seen, "int32"))
    assert contrast(method, cluster=own) == pytest.approx(value, rel=RTOL)
    assert by_hand(np.ones((4, 8)), own, seen) == pytest.approx(value, rel=1e-7)


def test_with_alpha_1_the_pairs_of_view_2_do_not_matter():
    method = brcd(alpha=1.0)
    method.mask.assign(np.zeros((3, 8)))  # all pairs 0, all negatives 0
    assert np.isfinite(contrast(method))
    assert contrast(method) == pytest.approx(
        contrast(method, second=T2 + 1e-3), rel=RTOL
    )


def test_a_row_without_negatives_gives_0():
    method = brcd()
    alike = np.zeros(4, "int32")
    method.centres.assign(np.eye(3, 8) * np.array([[0.0], [99.0], [99.0]]))
    assert contrast(method, cluster=alike) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.run  # scikit-learn asks a process for the number of cores
def test_prepare_finds_clusters_and_is_part_of_the_state():
    method = brcd(np.zeros((2, 8)))
    assert not method.is_prepared
    rows = np.where(np.arange(6)[:, None] < 4, 1.0, -1.0) * np.ones((6, 8))
    method = BRCD(num_examples=8, num_clusters=2)
    method.build({"exit_1": (None, 8)}, {"exit_1": (None, 8)})
    method.prepare({"exit_1": rows}, {"index": np.array([7, 6, 5, 4, 1, 0])})
    assert method.is_prepared
    cluster = method.cluster.numpy()
    assert len({*cluster[4:]}) == 1 and cluster[0] == cluster[1] != cluster[7]
    assert method.mask.numpy().all()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"alpha": 2}, "alpha must be"),
        ({"margin": 1}, "margin must be in"),
        ({"tau": 0}, "tau"),
        ({"num_clusters": 1}, "num_clusters"),
        ({"n_init": 0}, "n_init"),
    ],
)
def test_an_argument_out_of_range_is_one_line(arguments, line):
    with pytest.raises(UserError, match=line):
        BRCD(num_examples=4, **arguments)


def test_what_it_needs_is_one_line():
    with pytest.raises(UserError, match="give num_examples"):
        BRCD().build({"exit_1": (None, 8)}, {"exit_1": (None, 8)})
    with pytest.raises(UserError, match="it has 1 different ones"):
        brcd().prepare({"exit_1": np.ones((4, 8))}, {"index": np.arange(4)})
