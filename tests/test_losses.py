"""The losses: known answers, the float64 reference, limits and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd.methods.common import losses
from tf_mskd.tasks.softmax import correct, cross_entropy, softened_kl

PAIR = ([[2, -1, 0.5], [0.1, 3, -2]], [[1, 0, 0], [0, 1, -1]])  # teacher, student


def close(name, got, expected, rtol=2e-5, atol=0.0):
    got = keras.ops.convert_to_numpy(got)
    message = f"{name}: got {got}, expected {expected}"
    np.testing.assert_allclose(got, expected, rtol, atol, err_msg=message)


def gradient(function, *values):
    values = [tf.constant(v, tf.float32) for v in values]
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = function(*values)
    return tape.gradient(loss, values)


def test_cross_entropy_known_answers():
    close("ce", cross_entropy([0, 1], [[0.0, 0.0]] * 2), np.log([2, 2]))
    value = cross_entropy(reference.LABELS, reference.STUDENT)
    close("ce fixture", np.mean(value), 2.13784098)


@pytest.mark.parametrize(
    "teacher, student, temperature, expected",
    [
        ([[2 * np.log(3), 0]], [[0, 0]], 2.0, 0.52324814),
        (*PAIR, 1.0, 0.18721953),
        (*PAIR, 3.0, 0.49946945),
        (*PAIR, 4.0, 0.53290293),
        (reference.TEACHER, reference.STUDENT, 1.0, 0.37810951),
        (reference.TEACHER, reference.STUDENT, 3.0, 0.57027378),
        (reference.TEACHER, reference.STUDENT, 4.0, 0.58628936),
    ],
)
def test_softened_kl_known_answers(teacher, student, temperature, expected):
    value = softened_kl(np.array(teacher), np.array(student), temperature)
    close(f"kd T={temperature}", np.mean(value), expected)


def test_sums_over_exits():
    student, teacher = reference.STUDENT_EXITS, reference.TEACHER_EXITS

    def total(values):
        return sum(np.mean(v) for v in values)

    ce = total(cross_entropy(reference.LABELS, z) for z in student.values())
    close("sum of CE", ce, 8.50035848)
    one = total(softened_kl(reference.TEACHER, z, 3.0) for z in student.values())
    close("one teacher to every exit", one, 3.41144748)
    paired = total(softened_kl(teacher[n], z, 3.0) for n, z in student.items())
    close("exit to exit", paired, 0.85973511)
    deepest = student["exit_4"]
    own = total(softened_kl(deepest, z, 3.0) for z in list(student.values())[:3])
    close("deepest to shallower", own, 0.51770994)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_inputs_match_the_reference(scale, seed):
    rng = np.random.default_rng(seed)
    z, t = scale * rng.normal(size=(2, 16, 100))
    labels = rng.integers(0, 100, 16)
    expected = reference.cross_entropy(labels, z)
    close("ce", cross_entropy(labels, z), expected, atol=1e-5)
    for temperature in (1.0, 4.0):
        expected = reference.softened_kl(t, z, temperature)
        got = softened_kl(t, z, temperature)
        close(f"kd T={temperature}", got, expected, atol=3e-6 * temperature**2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_results_are_float32_of_one_number_per_row(dtype):
    z = keras.ops.cast(reference.STUDENT, dtype)
    for value in (
        cross_entropy([0, 1, 2, 3], z),
        softened_kl(z, z, 4.0),
    ):
        assert value.dtype == tf.float32
        assert value.shape == (4,)


def test_a_constant_per_row_changes_nothing():
    z, t = reference.STUDENT, reference.TEACHER
    shift = np.array([[5.0], [-3.0], [0.5], [20.0]])
    expected = reference.softened_kl(t, z, 4.0)
    close("kd, student shifted", softened_kl(t, z + shift, 4.0), expected, 1e-4)
    close("kd, teacher shifted", softened_kl(t + shift, z, 4.0), expected, 1e-4)
    expected = reference.cross_entropy(reference.LABELS, z)
    got = cross_entropy(reference.LABELS, z + shift)
    close("ce shifted", got, expected, 1e-4)
    close("kd of equals", softened_kl(z + shift, z, 4.0), np.zeros(4), atol=1e-5)


def test_extreme_logits_stay_finite():
    z = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]])
    t = z[:, ::-1].copy()
    labels = [1, 0]
    close("ce", cross_entropy(labels, z), reference.cross_entropy(labels, z))
    close("kd", softened_kl(t, z, 4.0), reference.softened_kl(t, z, 4.0))
    grads = gradient(lambda a: cross_entropy(labels, a), z)
    grads += gradient(lambda a: softened_kl(t, a, 4.0), z)
    for name, value in zip(["ce", "kd"], grads, strict=True):
        assert np.isfinite(value).all(), f"{name}: gradient {value}"


def test_no_gradient_reaches_the_target():
    to_target, to_guided = gradient(
        lambda t, z: softened_kl(t, z, 4.0),
        reference.TEACHER,
        reference.STUDENT,
    )
    assert to_target is None or not np.any(to_target)
    assert np.any(to_guided)


def test_gradients_match_finite_differences_of_the_reference():
    z, t, labels = reference.STUDENT, reference.TEACHER, reference.LABELS
    (got,) = gradient(lambda a: cross_entropy(labels, a), z)
    expected = reference.numeric_gradient(
        lambda a: reference.cross_entropy(labels, a).sum(), z
    )
    close("gradient of ce", got, expected, 1e-4, 1e-6)
    (got,) = gradient(lambda a: softened_kl(t, a, 4.0), z)
    expected = reference.numeric_gradient(
        lambda a: reference.softened_kl(t, a, 4.0).sum(), z
    )
    close("gradient of kd", got, expected, 1e-4, 1e-6)
    difference = reference.softmax(z / 4) - reference.softmax(t / 4)
    close("gradient T (q - p)", got, 4 * difference, 1e-4, 1e-6)


def test_correct_marks_the_rows_whose_highest_score_is_at_the_label():
    scores = [[0.1, 0.9], [3.0, -1.0], [0.0, 1.0]]
    assert list(correct(np.array([1, 1, 1], np.int32), scores)) == [
        1.0,
        0.0,
        1.0,
    ]


def test_normalize_gives_zero_vectors_no_gradient():
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    close("unit vectors", losses.normalize(x), [[0.0, 0.0], [0.6, 0.8]])
    (got,) = gradient(lambda a: keras.ops.sum(losses.normalize(a) * [[1.0, 2.0]]), x)
    # (I - u u^T) (1, 2) / 5 with u = (0.6, 0.8)
    close("gradient", got, [[0.0, 0.0], [-0.064, 0.048]], atol=1e-6)


# ---- pooled maps and triplets


@pytest.mark.parametrize("height, width", [(4, 4), (5, 4), (2, 7), (1, 3)])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 3), (2, 3)])
def test_average_pool_in_eager_mode_graphs_and_xla(height, width, size):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype("f4")

    def windows(length, count):
        ends = [-(-(i + 1) * length // count) for i in range(count)]
        return [slice(i * length // count, end) for i, end in enumerate(ends)]

    rows, columns = windows(height, size[0]), windows(width, size[1])
    expected = [[x[:, i, j].mean((1, 2)) for j in columns] for i in rows]
    expected = np.array(expected).transpose(2, 0, 1, 3)

    def pool(x):
        return losses.average_pool(x, size)

    for jit in (None, False, True):
        function = pool if jit is None else tf.function(pool, jit_compile=jit)
        name = f"{height}x{width} to {size}, jit {jit}"
        close(name, function(x), expected, 1e-5, 1e-6)


def test_triplet_margin_known_answers():
    anchor, positive = np.zeros((3, 2)), np.array([[3, 4], [0, 1], [0, 0]])
    negative = np.array([[0, 1], [3, 4], [0, 0]])
    close("triplet", losses.triplet_margin(anchor, positive, negative, 1.0), [5, 0, 1])
    value = losses.triplet_margin(
        reference.TEACHER, reference.STUDENT, 2 * reference.fill(3.3, [4, 5]), 5.0
    )
    close("triplet fixture", np.mean(value), 3.75156985)


def test_gradient_of_the_triplet_is_finite_where_all_agree():
    ones = np.ones((2, 3))
    shift = ones + 1e-6  # the guard cancels out: a distance of exactly 0
    for given in ((ones, ones, ones), (ones, shift, shift)):
        for value in gradient(lambda *v: losses.triplet_margin(*v, 1.0), *given):
            assert np.isfinite(value).all(), value
