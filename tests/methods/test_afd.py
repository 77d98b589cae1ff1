"""AFD: attention between all blocks, against a NumPy network of its own."""

import numpy as np
import pytest

from tests import reference
from tf_mskd import SGD, Distiller, UserError
from tf_mskd.methods import afd
from tf_mskd.methods.common.create import create_method

STUDENT = {
    "block_1": reference.fill(0.3, [4, 4, 4, 3]),
    "block_2": reference.fill(0.8, [4, 2, 2, 5]),
}
TEACHER = {
    "block_1": reference.fill(0.9, [4, 4, 4, 6]),
    "block_2": reference.fill(1.4, [4, 4, 4, 6]),
    "block_3": reference.fill(2.1, [4, 2, 2, 8]),
}
EXITS = {"exit_1": reference.STUDENT}, {"exit_1": reference.TEACHER}
LABEL = {"label": reference.LABELS}


def made(**arguments):
    """A built method on the fixture."""
    method = create_method("afd", **arguments)
    terms(method)
    return method


def terms(method, student=None, teacher=None):
    student = {**EXITS[0], **(STUDENT if student is None else student)}
    teacher = {**EXITS[1], **(TEACHER if teacher is None else teacher)}
    return {n: np.asarray(v) for n, v in method(student, teacher, LABEL).items()}


def norm(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def energy(x, size):
    """mean_c x^2, pooled or repeated to size x size, unit length."""
    x = (x**2).mean(-1)
    if x.shape[1] > size:
        x = x.reshape(len(x), size, x.shape[1] // size, size, -1).mean((2, 4))
    else:
        x = x.repeat(size // x.shape[1], 1).repeat(size // x.shape[2], 2)
    x = x.reshape(len(x), -1)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def formula(student, teacher, attend):
    """attend(s, t) -> weight [B] of student block s for teacher block t."""
    total = 0
    for t, target in enumerate(teacher):
        for s, block in enumerate(student):
            gap = energy(block, target.shape[1]) - energy(target, target.shape[1])
            total = total + attend(s, t) * (gap**2).mean(1)
    return total


def test_uniform_attention_of_the_fixture():
    method = made()
    for variable in method.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    got = terms(method)["afd/blocks"]
    np.testing.assert_allclose(got.mean(), 0.00884500, 2e-5)
    blocks = list(STUDENT.values()), list(TEACHER.values())
    expected = formula(*blocks, lambda s, t: np.full(4, 0.5))
    np.testing.assert_allclose(got, expected, 2e-5)


def test_attention_is_the_formula_with_random_weights():
    dim = 5
    method = made(dim=dim)
    rng = np.random.default_rng(0)
    for variable in method.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))

    def project(layer, x):
        kernel, bias = (w.numpy() for w in layer.dense.weights)
        gamma, beta = layer.norm.gamma.numpy(), layer.norm.beta.numpy()
        return norm(x @ kernel + bias) * gamma + beta

    student, teacher = list(STUDENT.values()), list(TEACHER.values())
    pooled = [[x.mean((1, 2)) for x in part] for part in (student, teacher)]
    keys = [
        np.maximum(project(p, x), 0)
        for p, x in zip(method.keys, pooled[0], strict=True)
    ]
    queries = [project(p, x) for p, x in zip(method.queries, pooled[1], strict=True)]
    mixed = project(method.bilinear, np.concatenate(keys)).reshape(2, 4, 3, dim)
    codes_s, codes_t = method.codes_student.numpy(), method.codes_teacher.numpy()
    scores = np.empty((4, 3, 2))
    for s in range(2):
        for t in range(3):
            scores[:, t, s] = (mixed[s, :, t] * queries[t]).sum(1)
            scores[:, t, s] += codes_s[s] @ codes_t[t]
    shares = reference.softmax(scores / np.sqrt(dim))
    expected = formula(student, teacher, lambda s, t: shares[:, t, s])
    got = terms(method)["afd/blocks"]
    np.testing.assert_allclose(got, expected, 1e-4)
    assert shares.std() > 0.1


def test_labels_and_soft_targets_at_every_exit():
    got = terms(made())
    np.testing.assert_allclose(got["ce/exit_1"].mean(), 2.13784098, 2e-5)
    np.testing.assert_allclose(got["kd/exit_1"].mean(), 0.58628936, 2e-5)
    method = create_method("afd")
    pairs = method.output_pairs(
        ["exit_1", "exit_2", "block_1"], ["exit_3", "exit_4", "block_1"]
    )
    assert pairs["exit_1"] == pairs["exit_2"] == ("exit_4",)


@pytest.mark.parametrize("side", [1, 2, 4, 8, 16])
def test_energy_is_pooled_or_repeated(side):
    x = np.random.default_rng(0).normal(size=(2, side, side, 3))
    for size in (1, 2, 4, 8):
        got = afd.energy(x.astype("float32"), (size, size))
        np.testing.assert_allclose(got, energy(x, size), 2e-5)


def test_energy_is_pooled_by_overlapping_windows_where_sizes_do_not_divide():
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 3))
    windows = [slice(0, 2), slice(1, 4), slice(3, 5)]
    pooled = (x**2).mean(-1)
    pooled = np.stack([pooled[:, w].mean(1) for w in windows], 1)
    pooled = np.stack([pooled[:, :, w].mean(2) for w in windows], 2).reshape(2, 9)
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    got = afd.energy(x.astype("float32"), (3, 3))
    np.testing.assert_allclose(got, expected, 2e-5)


def test_the_length_of_a_students_map_does_not_count_in_what_is_compared():
    method = made()
    for variable in method.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    scale = np.array([0.1, 1.0, 3.0, 70.0]).reshape(4, 1, 1, 1)
    scaled = {name: scale * x for name, x in STUDENT.items()}
    got, expected = terms(method, scaled)["afd/blocks"], terms(method)["afd/blocks"]
    np.testing.assert_allclose(got, expected, 2e-5)


def test_attention_of_a_phase_runs_over_its_blocks_alone():
    method = made()
    one = {"block_1": STUDENT["block_1"]}
    got = terms(method, one)["afd/blocks"]
    blocks = list(one.values()), list(TEACHER.values())
    expected = formula(*blocks, lambda s, t: np.ones(4))
    np.testing.assert_allclose(got, expected, 2e-5)


@pytest.mark.parametrize(
    ("every", "numbers"), [(1, (1, 2, 3, 4, 5)), (2, (1, 3, 5)), (3, (2, 5))]
)
def test_every_nth_block_counts_from_the_deepest(every, numbers):
    method = create_method("afd", every=every)
    names = [f"block_{k}" for k in range(1, 6)]
    pairs = method.output_pairs([*names, "exit_1"], [*names, "exit_1"])
    expected = tuple(f"block_{k}" for k in numbers)
    assert tuple(n for n in pairs if n.startswith("block")) == expected
    assert pairs["block_5"] == expected
    assert method.output_pairs(list(pairs), [*expected, "exit_1"]) == pairs


def test_progressive_phases_train(tiny, digits):
    images, labels = (part[:16] for part in digits)
    student, teacher = tiny((1, 2, 4)), tiny((4,), 1 / 8)
    distiller = Distiller(student, teacher, "afd", phases="progressive")
    distiller.compile(SGD(0.01), jit_compile=False)
    for phase in (1, 2, 3):
        distiller.set_phase(phase)
        assert np.isfinite(distiller.train_step((images, labels))["loss"])
    before = [v.numpy() for v in distiller.method.trainable_variables]
    distiller.train_step((images, labels))
    after = [v.numpy() for v in distiller.method.trainable_variables]
    assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_refuses_what_does_not_fit():
    with pytest.raises(UserError, match="reads block_k of the teacher, .* only exit_1"):
        create_method("afd").output_pairs(["exit_1", "block_1"], ["exit_1"])
