"""AMKD: the attack, the choice of candidates, the triplet, the changed batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import SGD, Distiller, UserError
from tf_mskd.methods.amkd import AMKD, attack
from tf_mskd.methods.common.gradients import input_gradient


def triplet(anchor, positive, negative, margin):
    """max(d(a, p) - d(a, n) + m, 0) of each row, float64."""

    def distance(p, q):
        return np.sqrt(np.sum((p - q + 1e-6) ** 2, axis=1))

    gap = distance(anchor, positive) - distance(anchor, negative)
    return np.maximum(gap + margin, 0)


def attack_by_hand(weight, x, c, k, steps, step_size, low, high):
    """The attack on logits x @ weight, one image at a time, float64."""
    moved = np.array(x, np.float64)
    for row, image in enumerate(moved):
        for _ in range(steps):
            z = image @ weight
            if np.argmax(z) != c[row]:
                break
            g = weight[:, k[row]] - weight[:, c[row]]
            gap = z[c[row]] - z[k[row]] + 1e-4
            image += step_size * gap * g / np.linalg.norm(g)
            np.clip(image, low, high, out=image)
    return moved


def rows(plain, boundary):
    """[B, D] twice to [2 B, D], rows of one image behind each other."""
    return np.stack([plain, boundary], axis=1).reshape(-1, plain.shape[-1])


def case(negative=None):
    """Student and teacher logits of eight rows, and the labels of those."""
    negative = 2 * reference.fill(3.3, [4, 5]) if negative is None else negative
    student = {"exit_2": rows(reference.STUDENT, negative)}
    teacher = {"exit_3": rows(reference.TEACHER, reference.TEACHER)}
    return student, teacher, {"label": reference.LABELS.repeat(2)}


# ---- the attack


@pytest.mark.parametrize("steps, expected", [(10, 0.02815035), (30, -6.1159e-6)])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_attack_of_a_linear_network_ends_where_the_formula_says(
    steps, expected, jit_compile
):
    def run(x):
        return attack(
            lambda x: tf.stack([x[:, 0], 0 * x[:, 0]], axis=1),
            x,
            np.array([0]),
            np.array([1]),
            steps=steps,
            step_size=0.3,
            bounds=(-2.5, 2.5),
        )

    x = tf.constant([[1.0, 0.0]])
    for function in (run, tf.function(run, jit_compile=jit_compile)):
        got = function(x).numpy()[0]
        np.testing.assert_allclose(got[0], expected, 2e-5, 2e-9)
        assert got[1] == 0


def test_the_attack_agrees_with_the_reference():
    rng = np.random.default_rng(0)
    weight, x = 0.4 * rng.normal(size=(6, 4)), rng.normal(size=(12, 6))
    c = np.argmax(x @ weight, axis=1)
    k = (c + 1 + np.arange(12) % 3) % 4
    arguments = {"steps": 25, "step_size": 0.3}
    expected = attack_by_hand(weight, x, c, k, low=-1.5, high=1.5, **arguments)
    stays = np.argmax(expected @ weight, axis=1) == c
    assert stays.any() and not stays.all(), stays  # both ends are there
    weight = weight.astype("f4")
    got = attack(
        lambda x: keras.ops.matmul(x, weight),
        tf.constant(x, tf.float32),
        c,
        k,
        bounds=(-1.5, 1.5),
        **arguments,
    )
    np.testing.assert_allclose(got, expected, 1e-3, 1e-5)


def test_the_attack_moves_no_image_that_starts_in_another_class():
    x = tf.constant([[-1.0, 0.5]])
    got = attack(
        lambda x: tf.stack([x[:, 0], 0 * x[:, 0]], axis=1),
        x,
        np.array([0]),
        np.array([1]),
        steps=3,
        step_size=0.3,
        bounds=(-2.5, 2.5),
    )
    np.testing.assert_array_equal(got, x)


def test_the_attack_stays_finite_where_the_gradient_is_zero():
    x = tf.constant([[1.0, 0.5]])
    flat = tf.constant([[1.0, 0.0]])
    got = attack(
        lambda x: flat + 0 * x,
        x,
        np.array([0]),
        np.array([1]),
        steps=3,
        step_size=0.3,
        bounds=(-2.5, 2.5),
    )
    np.testing.assert_array_equal(got, x)


def test_the_input_gradient_is_that_of_each_row():
    x = np.random.default_rng(0).normal(size=(3, 4))

    def function(x):
        return keras.ops.sum(x**3, axis=-1), x[:, :1]

    gradient, value, extra = input_gradient(function, x)
    np.testing.assert_allclose(gradient, 3 * x**2, 1e-5)
    np.testing.assert_allclose(value, np.sum(x**3, -1), 1e-5)
    np.testing.assert_allclose(extra, x[:, :1], 1e-6)


def test_the_input_gradient_of_a_constant_is_zero():
    gradient, _, _ = input_gradient(lambda x: (tf.ones(2), ()), np.ones((2, 3)))
    np.testing.assert_array_equal(gradient, np.zeros((2, 3)))


def test_the_input_gradient_says_which_backend_it_needs(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="TensorFlow backend; KERAS_BACKEND is jax"):
        input_gradient(lambda x: (x, ()), np.ones((2, 3)))


# ---- the terms


def test_the_triplet_of_the_fixture():
    terms = AMKD(margin=5.0, temperature=1.0)(*case())
    for name, expected in (
        ("amkd/exit_2", 3.75156985),
        ("kd/exit_2", 0.37810951),
        ("ce/exit_2", 2.13784098),
    ):
        got = np.mean(terms[name])
        np.testing.assert_allclose(got, expected, 2e-5, err_msg=name)


def test_the_terms_agree_with_the_reference():
    rng = np.random.default_rng(1)
    z, t, negative = rng.normal(size=(3, 4, 5)) * 2
    label = {"label": reference.LABELS.repeat(2)}
    student, teacher = {"exit_1": rows(z, negative)}, {"exit_1": rows(t, -t)}
    terms = AMKD(margin=2.0)(student, teacher, label)
    expected = triplet(t, z, negative, 2.0)
    assert 0 < np.count_nonzero(expected)
    np.testing.assert_allclose(terms["amkd/exit_1"], expected, 2e-5)
    expected = reference.softened_kl(t, z, 4.0)
    np.testing.assert_allclose(terms["kd/exit_1"], expected, 2e-5)
    expected = reference.cross_entropy(reference.LABELS, z)
    np.testing.assert_allclose(terms["ce/exit_1"], expected, 2e-5)


def test_a_student_like_its_teacher_with_a_far_negative_has_no_triplet():
    student, teacher, targets = case(negative=reference.TEACHER + 50)
    student["exit_2"][::2] = reference.TEACHER
    terms = AMKD()(student, teacher, targets)
    np.testing.assert_array_equal(terms["amkd/exit_2"], np.zeros(4))


def test_images_that_are_no_candidates_have_no_triplet():
    student, teacher, targets = case()
    everywhere = np.array(AMKD(margin=5.0)(student, teacher, targets)["amkd/exit_2"])
    assert np.all(everywhere > 0)
    targets["boundary"] = np.array([1, 0, 0, 1], "float32").repeat(2)
    some = AMKD(margin=5.0)(student, teacher, targets)["amkd/exit_2"]
    np.testing.assert_allclose(some, everywhere * [1, 0, 0, 1], 1e-6)


def test_labels_are_learnt_at_every_exit_and_the_rest_at_the_last():
    student, teacher, targets = case()
    student["exit_1"] = student["exit_2"]
    terms = AMKD()(student, teacher, targets)
    assert set(terms) == {"ce/exit_1", "ce/exit_2", "kd/exit_2", "amkd/exit_2"}


def test_the_triplet_fades_out_by_three_quarters_of_the_run():
    method = AMKD()
    factors = [method.schedule(epoch, 8, [])["amkd"] for epoch in range(8)]
    expected = [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0]
    np.testing.assert_allclose(factors, expected, 1e-12, 1e-12)


# ---- the changed batch


class Networks:
    """Two linear networks on images [B, 1, 2, 1]: logits are multiples of pixels."""

    def __init__(self, student_x=1.0, teacher_x=1.0):
        self.student_x, self.teacher_x = student_x, teacher_x

    def student(self, x):
        return {"exit_1": self.student_x * keras.ops.reshape(x, (-1, 2)) / 25}

    def teacher(self, x):
        return {"exit_4": self.teacher_x * keras.ops.reshape(x, (-1, 2)) / 25}


def augmented(method, images, label, networks):
    method.build({"exit_1": (None, 2)}, {"exit_4": (None, 2)})
    images = np.array(images, np.uint8).reshape(-1, 1, 2, 1)
    targets = {"label": np.array(label), "index": np.arange(len(label))}
    return method.augment(images, targets, networks.student, networks.teacher)


def test_a_boundary_sample_lies_nearer_to_the_boundary_behind_its_image():
    method = AMKD(pixel_std=0.05)
    images, targets = augmented(method, [[200, 100], [10, 90]], [0, 1], Networks())
    assert images.shape == (4, 1, 2, 1)
    flat = np.array(images).reshape(4, 2)
    np.testing.assert_array_equal(flat[::2], [[200, 100], [10, 90]])
    np.testing.assert_array_equal(targets["boundary"], np.ones(4))
    gaps = flat[:, 0] - flat[:, 1]
    assert 0 < gaps[1] < 0.9 * gaps[0] and 0 < -gaps[3] < -0.9 * gaps[2], gaps


def test_the_length_of_steps_is_measured_in_deviations_of_pixels():
    method = AMKD(steps=1, pixel_std=0.2)
    images, _ = augmented(method, [[200, 100]], [0], Networks())
    # z = x / 25, so z_c - z_k = 4; the step is 0.3 * 4.0001 deviations of 51 levels
    step = 0.3 * 4.0001 * 51 / np.sqrt(2)
    flat = np.array(images).reshape(2, 2)
    np.testing.assert_allclose(flat[1], [200 - step, 100 + step], 1e-5)


def test_boundary_samples_are_valid_pixels():
    method = AMKD(steps=1, pixel_std=0.9)
    images, targets = augmented(method, [[255, 0], [255, 250]], [0, 0], Networks())
    np.testing.assert_array_equal(targets["boundary"], np.ones(4))
    assert images.numpy().min() == 0 and images.numpy().max() == 255


def test_an_image_that_one_network_gets_wrong_is_repeated():
    networks = Networks(student_x=-1.0)
    images, targets = augmented(AMKD(), [[200, 99], [10, 90]], [0, 1], networks)
    np.testing.assert_array_equal(targets["boundary"], np.zeros(4))
    flat = np.array(images).reshape(4, 2)
    np.testing.assert_array_equal(flat, [[200, 99], [200, 99], [10, 90], [10, 90]])
    networks = Networks(teacher_x=-1.0)
    _, targets = augmented(AMKD(), [[200, 99], [10, 90]], [0, 1], networks)
    np.testing.assert_array_equal(targets["boundary"], np.zeros(4))


def test_targets_are_repeated_row_by_row():
    _, targets = augmented(AMKD(), [[200, 99], [10, 90]], [0, 1], Networks())
    np.testing.assert_array_equal(targets["label"], [0, 0, 1, 1])
    np.testing.assert_array_equal(targets["index"], [0, 0, 1, 1])


def test_of_many_candidates_those_with_the_largest_gap_between_networks_are_taken():
    method = AMKD(num_candidates=2)
    images = [[200, 100], [110, 100], [130, 100], [100, 200]]
    _, targets = augmented(method, images, [0, 0, 0, 0], Networks(student_x=0.5))
    p = [reference.softmax(s * np.array(images) / 25) for s in (0.5, 1.0)]
    gap = (p[0] - p[1])[:, 1] ** 2
    gap[3] = -1  # both networks get it wrong
    expected = gap >= np.sort(gap)[-2]
    np.testing.assert_array_equal(targets["boundary"][::2], expected.astype("f4"))


def test_the_gap_between_networks_leaves_the_true_class_out():
    label = np.zeros(2, int)
    evenly = [[0.9] + [0.01] * 10, [0.4] + [0.06] * 10]  # the true class differs most
    swapped = [[0.8, 0.2] + [1e-6] * 9, [0.8, 1e-6, 0.2] + [1e-6] * 8]
    student_x, teacher_x = np.log(np.stack([evenly, swapped], axis=1)).astype("f4")
    both, _ = AMKD(num_candidates=1)._choose(label, student_x, teacher_x)
    np.testing.assert_array_equal(both, [False, True])


def test_no_sample_goes_to_the_class_it_has():
    method, classes = AMKD(), 10
    method.build({"exit_1": (None, classes)}, {"exit_4": (None, classes)})
    label = np.arange(500) % classes
    logits = 4 * np.eye(classes)[label] + np.arange(classes) / 4
    both, goal = method._choose(label, logits.astype("f4"), logits.astype("f4"))
    assert np.count_nonzero(both) == 64
    assert not np.any(goal == label)
    assert set(np.array(goal)) == set(range(classes))


def test_goals_are_drawn_by_the_teachers_probabilities():
    method = AMKD()
    label = np.zeros(4000, int)
    logits = np.tile(np.log([0.7, 0.2, 0.1]), (4000, 1)).astype("f4")
    _, goal = method._choose(label, logits, logits)
    share = np.bincount(np.array(goal), minlength=3) / 4000
    np.testing.assert_allclose(share, [0, 2 / 3, 1 / 3], atol=0.03)


def test_a_phase_without_the_last_exit_repeats_the_images():
    networks = Networks()
    networks.teacher = lambda x: {}
    images, targets = augmented(AMKD(), [[200, 99], [10, 90]], [0, 1], networks)
    np.testing.assert_array_equal(targets["boundary"], np.zeros(4))
    flat = np.array(images).reshape(4, 2)
    np.testing.assert_array_equal(flat[1::2], flat[::2])


def test_draws_go_on_from_a_tracked_state():
    method = AMKD()
    (state,) = [v for v in method.variables if "seed_generator_state" in v.path]
    label = np.zeros(100, int)
    draw = [method._choose(label, np.zeros((100, 9)), np.zeros((100, 9)))[1]]
    before = state.numpy()
    draw.append(method._choose(label, np.zeros((100, 9)), np.zeros((100, 9)))[1])
    assert np.any(np.array(draw[0]) != np.array(draw[1]))
    state.assign(before)
    again = method._choose(label, np.zeros((100, 9)), np.zeros((100, 9)))[1]
    np.testing.assert_array_equal(again, draw[1])


@pytest.mark.run
def test_a_compiled_run_on_digits_moves_candidates_and_learns(tiny, digits):
    images, labels = digits[0][:64], digits[1][:64]
    teacher = tiny((2,), 1 / 8)
    plain = Distiller(teacher, method="ce")
    plain.compile(SGD(0.1), jit_compile=False)
    plain.fit(images, labels, epochs=6, batch_size=32, verbose=0)
    distiller = Distiller(tiny((2,)), teacher, "amkd")
    distiller.compile(SGD(0.1), jit_compile=False)
    logs = distiller.fit(images, labels, epochs=4, batch_size=32, verbose=0).history
    assert logs["loss"][-1] < logs["loss"][0], logs["loss"]
    assert float(distiller.term_weights["amkd"]) == 0, "the triplet has not faded"
    changed, targets = distiller.augment(images, {"label": labels})
    chosen = np.array(targets["boundary"][::2]) == 1
    assert chosen.any() and not chosen.all(), chosen
    gap = np.abs(np.array(changed[1::2] - changed[::2])).max((1, 2, 3))
    assert (gap[chosen] > 0).all() and (gap[~chosen] == 0).all()


def test_the_first_phase_of_a_progressive_run_learns_labels(tiny, digits):
    student, teacher = tiny((1, 2)), tiny((2,), 1 / 8)
    distiller = Distiller(student, teacher, "amkd", phases="progressive")
    distiller.compile(SGD(0.1), run_eagerly=True, jit_compile=False)
    logs = distiller.fit(digits[0][:8], digits[1][:8], verbose=0).history
    assert [name for name in logs if "/" in name] == ["ce/exit_1"]


def test_a_network_without_exits_is_refused():
    with pytest.raises(UserError, match="exit_k of the teacher, which makes only"):
        AMKD().output_pairs(["exit_1"], ["feature_1"])
