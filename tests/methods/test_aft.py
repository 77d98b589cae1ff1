"""AFT-KD: blocks of attention and features, adapters, adaptive weights."""

import keras
import numpy as np
import pytest

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.aft import AFT, attention_feature

FS = reference.fill(0.3, [4, 4, 4, 3])
FT = reference.fill(0.9, [4, 2, 2, 6])
FT2 = reference.fill(0.9, [4, 4, 4, 3])


def unit(x):
    flat = x.reshape(len(x), -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def block_of(x, grid):
    """Both unit vectors of a square map whose side the grid divides, float64."""
    b, side, _, c = x.shape
    part = side // grid
    pooled = x.reshape(b, grid, part, grid, part, c).mean((2, 4))
    return np.concatenate([unit((pooled**2).mean(-1)), unit(pooled)], axis=1)


def loss(student_x, teacher_x, grid):
    """||A(F_s) - A(F_t)||^2 of each row."""
    return np.sum((block_of(student_x, grid) - block_of(teacher_x, grid)) ** 2, axis=1)


def terms_of(student_x, teacher_x, **arguments):
    student = {"exit_2": reference.STUDENT, "feature_2": student_x}
    teacher = {"exit_3": reference.TEACHER, "feature_3": teacher_x}
    method = AFT(**arguments)
    return method(student, teacher, {"label": reference.LABELS}), method


def test_known_answer_of_the_fixture():
    terms, _ = terms_of(FS, FT2)
    for name, expected in (
        ("aft/feature_2", 0.44377605),
        ("kd/exit_2", 0.58628936),
        ("ce/exit_2", 2.13784098),
    ):
        got = np.mean(terms[name])
        np.testing.assert_allclose(got, expected, 2e-5, err_msg=name)


def test_known_answer_by_hand():
    student_x, teacher_x = np.zeros((2, 1, 1, 2, 1))
    student_x[0, 0, :, 0], teacher_x[0, 0, :, 0] = (0.6, 0.8), (1.0, 0.0)
    maps = student_x, teacher_x
    vectors = [np.array(attention_feature(x, (1, 2))) for x in maps]
    got = np.sum((vectors[0] - vectors[1]) ** 2)
    energy = np.array([0.36, 0.64]) / np.hypot(0.36, 0.64)
    expected = (energy[0] - 1) ** 2 + energy[1] ** 2 + 0.4**2 + 0.8**2
    np.testing.assert_allclose(got, expected, 2e-5)


@pytest.mark.parametrize(
    "student_side, teacher_side, block, grid",
    [
        (8, 8, 2, 4),
        (8, 8, 1, 8),
        (8, 8, 8, 1),
        (4, 8, 2, 4),
        (8, 2, 2, 2),
        (1, 1, 2, 1),
    ],
)
def test_both_maps_come_to_one_grid(student_side, teacher_side, block, grid):
    rng = np.random.default_rng(0)
    student_x = rng.normal(size=(4, student_side, student_side, 5))
    teacher_x = rng.normal(size=(4, teacher_side, teacher_side, 5))
    terms, _ = terms_of(student_x, teacher_x, block=block)
    expected = loss(student_x, teacher_x, grid)
    np.testing.assert_allclose(terms["aft/feature_2"], expected, 2e-5)


def test_sizes_that_blocks_do_not_divide_are_pooled():
    rng = np.random.default_rng(0)
    student_x, teacher_x = rng.normal(size=(2, 4, 5, 5, 3))
    terms, _ = terms_of(student_x, teacher_x)
    windows = [slice(0, 3), slice(2, 5)]  # two that cover five, the middle one twice

    def pooled(x):
        rows = [[x[:, i, j].mean((1, 2)) for j in windows] for i in windows]
        return np.array(rows).transpose(2, 0, 1, 3)

    expected = loss(pooled(student_x), pooled(teacher_x), 2)
    np.testing.assert_allclose(terms["aft/feature_2"], expected, 2e-5)


def test_equal_maps_up_to_a_scale_per_example_give_zero():
    scale = np.array([0.5, 1.0, 2.0, 9.0])[:, None, None, None]
    terms, _ = terms_of(FS * scale, FS)
    np.testing.assert_allclose(terms["aft/feature_2"], np.zeros(4), atol=1e-9)
    expected = loss(FS, FT2, 2)
    terms, _ = terms_of(FS * scale, FT2 / scale)
    np.testing.assert_allclose(terms["aft/feature_2"], expected, 2e-5)


def test_an_adapter_brings_the_channels_to_the_teachers():
    terms, method = terms_of(FS, FT)
    adapter = method.adapters["feature_2"]
    kernel, gamma, beta = adapter.trainable_variables
    assert kernel.shape == (1, 1, 3, 6)
    weight = reference.fill(0.1, [3, 6])
    gamma.assign(reference.fill(1.0, [6]))
    beta.assign(reference.fill(2.0, [6]))
    kernel.assign(weight[None, None])
    x = FS @ weight
    x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    x = x * reference.fill(1.0, [6]) + reference.fill(2.0, [6])
    student = {"exit_2": reference.STUDENT, "feature_2": FS}
    teacher = {"exit_3": reference.TEACHER, "feature_3": FT}
    terms = method(student, teacher, {"label": reference.LABELS})
    np.testing.assert_allclose(terms["aft/feature_2"], loss(x, FT, 2), 2e-5)


def test_maps_of_one_width_need_no_adapter():
    _, method = terms_of(FS, FT2)
    assert method.adapters == {} and method.variables == []


def test_the_adapters_batch_norm_moves_by_a_tenth():
    _, method = terms_of(FS, FT)
    norm = method.adapters["feature_2"].layers[1]
    assert (norm.momentum, norm.epsilon) == (0.9, 1e-5)
    assert not method.adapters["feature_2"].layers[0].use_bias


def test_stages_are_paired_from_the_deep_end_and_exits_at_the_end():
    student = ["feature_1", "feature_2", "exit_1", "exit_2"]
    teacher = ["feature_1", "feature_2", "feature_3", "exit_3"]
    assert AFT().output_pairs(student, teacher) == {
        "feature_1": ("feature_2",),
        "feature_2": ("feature_3",),
        "exit_2": ("exit_3",),
    }


def test_outputs_that_a_phase_leaves_out_have_no_term():
    student = {"exit_1": reference.STUDENT, "exit_2": reference.STUDENT}
    student |= {"feature_1": FS, "feature_2": FS}
    teacher = {"exit_3": reference.TEACHER, "feature_2": FT2, "feature_3": FT2}
    method, label = AFT(), {"label": reference.LABELS}
    method(student, teacher, label)
    early = {name: student[name] for name in ("exit_1", "feature_1")}
    assert set(method(early, teacher, label)) == {"ce/exit_1", "aft/feature_1"}


# ---- weights


def history(*losses):
    """Two logs of terms ce, kd, aft in which each falls from 1 to a share of it."""
    names = ("ce/exit_2", "kd/exit_2", "aft/feature_1")[: len(losses)]
    before = dict.fromkeys(names, 1.0)
    last = dict(zip(names, losses, strict=True))
    return [{**before, "loss": 3.0}, {**last, "loss": 1.0}]


def test_all_weights_are_1_until_two_epochs_are_finished():
    method = AFT()
    assert method.schedule(0, 9, []) == {}
    assert method.schedule(1, 9, history(0.5, 1.0)[:1]) == {}


def test_weights_of_known_rates():
    factors = AFT(tau=2.0).schedule(2, 9, history(0.5, 1.0))
    expected = {"ce": 0.87564700, "kd": 1.12435300}
    assert factors.keys() == expected.keys()
    for term, value in expected.items():
        np.testing.assert_allclose(factors[term], value, 1e-7, err_msg=term)


def test_equal_rates_give_1():
    factors = AFT().schedule(5, 9, history(0.7, 0.7, 0.7))
    np.testing.assert_allclose(list(factors.values()), np.ones(3), 1e-12)
    assert set(factors) == {"ce", "kd", "aft"}


def test_what_falls_slowly_counts_more_and_the_weights_add_up():
    factors = AFT().schedule(5, 9, history(0.9, 0.1, 0.5))
    assert factors["ce"] > factors["aft"] > factors["kd"]
    np.testing.assert_allclose(sum(factors.values()), 3.0, 1e-12)


def test_the_rate_of_a_term_is_that_of_its_sum_over_outputs():
    logs = [
        {"ce/exit_1": 1.0, "kd/exit_1": 3.0, "kd/exit_2": 1.0},
        {"ce/exit_1": 0.5, "kd/exit_1": 1.0, "kd/exit_2": 1.0},
    ]
    factors = AFT().schedule(2, 9, logs)
    np.testing.assert_allclose(list(factors.values()), np.ones(2), 1e-12)


def test_an_output_that_came_with_a_new_phase_does_not_count_as_growth():
    logs = [{"ce/exit_1": 1.0, "kd/exit_1": 2.0}]
    logs += [{"ce/exit_1": 0.5, "kd/exit_1": 1.0, "kd/exit_2": 9.0}]
    factors = AFT().schedule(2, 9, logs)
    np.testing.assert_allclose(list(factors.values()), np.ones(2), 1e-12)


def test_losses_of_zero_and_explosions_keep_the_weights_finite():
    logs = [{"ce/exit_1": 0.0, "kd/exit_1": 0.0}, {"ce/exit_1": 0.0, "kd/exit_1": 5e9}]
    factors = AFT(tau=1e-3).schedule(2, 9, logs)
    np.testing.assert_allclose([factors["ce"], factors["kd"]], [0, 2], atol=1e-12)


def test_a_teacher_without_maps_is_refused():
    with pytest.raises(UserError, match="feature_k of the teacher"):
        AFT().output_pairs(["exit_1", "feature_1"], ["exit_1"])


def test_initial_adapters_follow_the_global_seed():
    kernels = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        kernels.append(terms_of(FS, FT)[1].trainable_variables[0].numpy())
    np.testing.assert_array_equal(*kernels)
