"""What a batch may look like: labels, weights and inputs, for every method."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.method_support import (
    ARGUMENTS,
    IMAGES,
    batch_for,
    every_method,
    fitting,
    teacher_for,
)
from tf_mskd import SGD, Distiller, UserError
from tf_mskd.methods.common.create import create_method
from tf_mskd.tasks import create_task
from tf_mskd.tasks.class_labels import read_class_labels
from tf_mskd.tasks.softmax import correct, cross_entropy
from tf_mskd.training.batch import read_weight
from tf_mskd.training.label_checks import check_labels

CLASSES = 10


@pytest.fixture
def batch(digits):
    return digits[0][:IMAGES], digits[1][:IMAGES]


def compiled(student, teacher=None, method="mskd", eager=True, **arguments):
    distiller = Distiller(student, teacher, method, **arguments)
    distiller.compile(SGD(0.1), run_eagerly=eager, jit_compile=False)
    return distiller


def one_hot(labels):
    return np.eye(CLASSES, dtype=np.float32)[labels]


class Steps:
    """Steps of a Distiller that all start from one state."""

    def __init__(self, distiller):
        self.distiller = distiller
        distiller.optimizer.build(distiller.trainable_variables)
        parts = [distiller, distiller.optimizer]
        self.variables = [v for part in parts for v in part.variables]
        self.start = [v.numpy() for v in self.variables]

    def __call__(self, *batch):
        """Returns the logs, the gradients (SGD's first velocities), what moved."""
        for variable, value in zip(self.variables, self.start, strict=True):
            variable.assign(value)
        self.distiller.reset_metrics()
        logs = {n: float(v) for n, v in self.distiller.train_step(batch).items()}
        gradients = [v.numpy() for v in self.distiller.optimizer.velocities]
        parts = [*self.distiller.learning_parts, self.distiller.optimizer]
        state = [v.numpy() for part in parts for v in part.variables]
        return logs, gradients, state


def assert_close(got, expected, factor=1.0):
    for one, other in zip(got, expected, strict=True):
        scale = np.abs(other).max() * factor + 1e-6
        np.testing.assert_allclose(one / scale, factor * other / scale, 1e-3, 1e-4)


@pytest.mark.run
@every_method
def test_shape_of_labels_and_weights_changes_nothing_and_a_number_scales(
    name, tiny, batch
):
    def make(exits):
        method = create_method(name, **ARGUMENTS.get(name, {}))
        numbers = (2,) if exits == "last" else (1, 2)
        head = "dense" if name == "eed" else "linear"
        student = tiny(numbers, aux_heads=method.aux_heads, exit_head=head)
        teacher = teacher_for(method, numbers) if method.needs_teacher else None
        return Distiller(student, teacher, method)

    distiller = fitting(name, make, ("last", "all"))
    distiller.compile(SGD(1e-3), run_eagerly=True, jit_compile=False)
    step = Steps(distiller)
    images, targets = batch_for(distiller.method, *batch)
    column = {**targets, "label": targets["label"][:, None].astype("float32")}
    weight = np.arange(IMAGES, dtype="float32") % 3
    logs, gradients, _ = step(images, targets, weight)
    halved, halves, _ = step(images, column, 0.5 * weight[:, None])
    for term, value in logs.items():
        value = 0.5 * value if term == "loss" else value
        np.testing.assert_allclose(halved[term], value, 1e-4, 1e-6, err_msg=term)
    assert_close(halves, gradients, 0.5)
    logs, _, state = step(images, targets, np.zeros(IMAGES, "float32"))
    assert logs["loss"] == 0, name
    start = {id(v): value for v, value in zip(step.variables, step.start, strict=True)}
    parts = [*distiller.learning_parts, distiller.optimizer]
    moving = [v for part in parts for v in part.variables]
    for variable, value in zip(moving, state, strict=True):
        np.testing.assert_array_equal(value, start[id(variable)], variable.path)


@pytest.mark.parametrize("name", ["mskd", "sp"])  # terms of rows and of a whole batch
def test_a_number_as_weight_scales_the_loss(name, tiny, batch):
    step = Steps(compiled(tiny(), tiny(), name))
    logs, gradients, _ = step(*batch)
    scaled, scaled_gradients, _ = step(*batch, np.float32(3.0))
    np.testing.assert_allclose(scaled["loss"], 3.0 * logs["loss"], 1e-4)
    assert_close(scaled_gradients, gradients, 3.0)


# ---- labels


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float32", "float64"])
@pytest.mark.parametrize("column", [False, True])
def test_class_numbers_of_any_dtype_become_int(dtype, column):
    labels = np.array([1, 0, 1]).astype(dtype)
    label = read_class_labels(labels[:, None] if column else labels, 3)
    assert label.dtype in (tf.int32, tf.int64)
    assert label.numpy().tolist() == [1, 0, 1]


def test_fit_and_evaluate_take_columns_and_one_hot_alike(tiny, digits):
    images, labels = digits[0][:32], digits[1][:32]
    distiller = compiled(tiny(), method="ce")
    step, results = Steps(distiller), []
    for y in (labels, labels[:, None].astype("uint8"), one_hot(labels)):
        logs, gradients, _ = step(images, y)
        told = distiller.evaluate(images, y, verbose=0, return_dict=True)
        results.append((logs, gradients, told))
    for logs, gradients, told in results[1:]:
        for got, expected in ((logs, results[0][0]), (told, results[0][2])):
            assert set(got) == set(expected)
            for name, value in expected.items():
                np.testing.assert_allclose(got[name], value, 1e-4, 1e-6, err_msg=name)
        assert_close(gradients, results[0][1])


def test_soft_labels_by_hand():
    logits = np.log([[0.25, 0.75], [0.5, 0.5]]).astype("float32")
    probs = np.array([[0.5, 0.5], [1.0, 0.0]], "float32")
    expected = [-0.5 * np.log(0.25) - 0.5 * np.log(0.75), np.log(2.0)]
    np.testing.assert_allclose(cross_entropy(probs, logits), expected, 1e-5)
    assert correct(probs[:, ::-1], logits).numpy().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ["dkd", "mskd,dkd"])
def test_methods_that_need_class_numbers_refuse_soft_labels(name, tiny, batch):
    distiller = compiled(tiny(), tiny(), name)
    with pytest.raises(UserError, match="needs class numbers, got one-hot or soft"):
        distiller.train_step((batch[0], one_hot(batch[1])))


def test_a_student_learns_without_labels(tiny, batch):
    images, labels = batch
    distiller = compiled(tiny(), tiny(), term_weights={"ce": 0.0}, eager=False)
    step, known = Steps(distiller), ["kd/exit_1", "kd/exit_2", "loss"]
    expected = step(images, labels)
    logs, gradients, _ = step(images)
    assert sorted(logs) == known
    assert logs["loss"] == expected[0]["loss"]
    assert_close(gradients, expected[1])
    history = distiller.fit(images, verbose=0).history
    assert sorted(history) == known
    with pytest.raises(UserError, match="needs labels, the data deliver nothing: pass"):
        distiller.evaluate(images, verbose=0)


def test_labels_that_a_term_reads_are_asked_for(tiny, batch):
    with pytest.raises(UserError, match=r"reads labels, .* nothing: .*\{'ce': 0.0\}"):
        compiled(tiny(), tiny()).train_step((batch[0],))
    distiller = compiled(tiny(), tiny(), "dkd", term_weights={"ce": 0.0})
    with pytest.raises(UserError, match="'dkd' reads labels, the data deliver nothing"):
        distiller.train_step((batch[0],))


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0, 10], r"class numbers 0..9, got 10: number the classes from 0"),
        ([0, -1], r"class numbers 0..9, got -1"),
        ([0.0, 2.5], r"class numbers 0..9, got 2.5: .*regression"),
        ([0.0, np.nan], r"class numbers 0..9, got nan"),
        ([[0], [11]], r"class numbers 0..9, got 11"),
        (np.eye(10)[[0, 1]] + np.eye(10)[[2, 3]], r"sum to 1, got .* 'multi_label'"),
        (np.eye(10)[[0, 1]] - 0.1, r"one-hot or probabilities that sum to 1, got"),
    ],
)
@pytest.mark.parametrize("kind", ["arrays", "dict", "Dataset", "generator"])
def test_labels_that_are_no_classes_are_refused(kind, labels, message, tiny):
    distiller = compiled(tiny(), method="ce", eager=False)
    before = distiller.student.get_weights()
    x, y = np.zeros((2, 8, 8, 1), "uint8"), np.array(labels)
    arguments = {"arrays": (x, y), "dict": (x, {"label": y})}.get(kind)
    if kind == "Dataset":
        arguments = (tf.data.Dataset.from_tensors((x, y)),)
    if kind == "generator":
        arguments = ((batch for batch in [(x, y)]),)
    call = distiller.evaluate if kind == "Dataset" else distiller.fit
    with pytest.raises(UserError, match=message) as error:
        call(*arguments, verbose=0)
    assert len(str(error.value).splitlines()) == 1
    for one, other in zip(before, distiller.student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_validation_labels_are_looked_at_before_training(tiny, batch):
    images, labels = batch
    distiller = compiled(tiny(), method="ce")
    wrong = images, labels + 5
    for held_out in (wrong, tf.data.Dataset.from_tensors(wrong)):
        with pytest.raises(UserError, match="class numbers 0..9, got"):
            distiller.fit(images, labels, validation_data=held_out, verbose=0)


def test_labels_of_one_batch_are_looked_at(tiny, batch):
    images, labels = batch
    distiller = compiled(tiny(), method="ce")
    for call in (distiller.train_on_batch, distiller.test_on_batch):
        for wrong in (labels + 5, {"label": labels + 5}):
            with pytest.raises(UserError, match="class numbers 0..9, got"):
                call(images, wrong)
    logs = distiller.test_on_batch(images, labels, np.ones(IMAGES), return_dict=True)
    assert logs["loss"] > 0


def test_a_dataset_that_is_right_is_left_as_it_is(tiny, digits):
    """The same batches in the same order, though each is looked at."""

    def data():
        arrays = digits[0][:24], digits[1][:24, None]
        data = tf.data.Dataset.from_tensor_slices(arrays)
        return data.shuffle(24, seed=1).batch(8)

    student = tiny()
    start = student.get_weights()
    distiller = compiled(student, method="ce", eager=False)
    distiller.fit(data(), shuffle=False, verbose=0)
    got = student.get_weights()
    student.set_weights(start)
    distiller = compiled(student, method="ce")
    for batch in data():
        distiller.train_step(batch)
    for one, other in zip(got, student.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, 1e-3, 1e-4)


@pytest.mark.parametrize("shape", [(IMAGES, 7), (IMAGES, 2, 2), ()])
def test_labels_of_other_shapes_are_refused(shape):
    with pytest.raises(
        UserError, match=r"\[B\] or \[B, 1\], or one-hot or soft \[B, 1"
    ):
        read_class_labels(np.zeros(shape, "int32"), CLASSES)
    with pytest.raises(UserError, match="got string"):
        read_class_labels(np.array(["cat"]), CLASSES)
    with pytest.raises(UserError, match="got list"):
        read_class_labels([np.zeros(2), np.zeros((2, 3))], CLASSES)


def test_good_labels_pass_the_look():
    task = create_task("classification")
    check_labels(np.array([], "int32"), task, (3,))
    check_labels([True, False], task, (2,))
    check_labels([[2.0], [0.0]], task, (3,))
    check_labels([[0.25, 0.75]], task, (2,))


def test_one_logit_is_refused(tiny):
    with pytest.raises(UserError, match="have one logit, .* num_classes=2, labels 0"):
        Distiller(tiny(classes=1), method="ce")


# ---- weights and inputs


def test_weights_become_one_for_each_image():
    x = {"a": np.zeros((2, 5))}
    assert read_weight(None, x) is None
    for given in ([1, 3], [[1.0], [3.0]], {"label": [1, 3]}, {"index": [1, 3]}):
        assert read_weight(given, x).numpy().tolist() == [1.0, 3.0]
    assert read_weight(2.0, x).numpy().tolist() == [2.0, 2.0]
    with pytest.raises(UserError, match=r"one for each image, .*, got \[2, 3\]: take"):
        read_weight(np.ones((2, 3)), x)


def test_a_batch_of_weight_zero_moves_nothing_in_a_graph(tiny, digits):
    images, labels = digits[0][:16], digits[1][:16]
    distiller = compiled(tiny(), method="ce", eager=False)
    distiller.train_on_batch(images, labels)
    parts = [distiller.student, distiller.optimizer]
    before = [v.numpy() for part in parts for v in part.variables]
    distiller.reset_metrics()
    logs = distiller.train_on_batch(
        images, labels, sample_weight=np.zeros(16), return_dict=True
    )
    assert logs["loss"] == 0
    after = [v.numpy() for part in parts for v in part.variables]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def two_inputs(kind):
    image = keras.Input((8, 8, 1), name="image")
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    x = keras.layers.Conv2D(4, 3, strides=2)(image)
    words = keras.layers.Embedding(7, 3)(tokens)
    vectors = [keras.layers.Flatten()(t) for t in (x, words)]
    x = keras.layers.Concatenate()(vectors)
    outputs = {f"exit_{k}": keras.layers.Dense(10, name=f"exit_{k}")(x) for k in (1, 2)}
    inputs = {"dict": {"image": image, "tokens": tokens}, "list": [image, tokens]}
    return keras.Model(inputs[kind], outputs)


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_inputs_may_be_a_tree(kind, batch):
    tokens = np.arange(5 * IMAGES).reshape(IMAGES, 5) % 7
    x = {"image": batch[0], "tokens": tokens}
    x = x if kind == "dict" else list(x.values())
    distiller = compiled(two_inputs(kind), method="ce", eager=False)
    weight = np.ones((IMAGES, 1))
    logs = distiller.fit(x, batch[1], sample_weight=weight, verbose=0).history
    assert np.isfinite(logs["loss"][0])
    told = distiller.evaluate(x, batch[1], verbose=0, return_dict=True)
    assert np.isfinite(told["loss"])
    guess = distiller.predict(x, verbose=0)
    assert guess["exit_2"].shape == (IMAGES, 10)
    with pytest.raises(UserError, match=r"'purf' changes images .* reads \(None, 8, 8"):
        Distiller(two_inputs(kind), method="purf")
