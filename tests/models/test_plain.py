"""Plain Keras models and callables as student and teacher; probabilities by numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mskd import Distiller, add_exits
from tf_mskd.models import graph, plain, probabilities, saving
from tf_mskd.utils.errors import UserError

LABELS = np.arange(8) % 4
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype("float32")


def classifier(end=None, units=4, shape=(8, 8, 3)):
    image = keras.Input(shape)
    x = keras.layers.Conv2D(4, 3, name="conv", activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(x))
    x = keras.layers.Dense(units, name="logits")(x)
    return keras.Model(image, end(x) if end else x, name="classifier")


def sequential(first=(), units=4):
    layers = [keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
    return keras.Sequential([*first, *layers, keras.layers.Dense(units)])


class Own(keras.Model):
    """Written as a class; of its outputs only the values are known."""

    def __init__(self, activation=None):
        super().__init__(name="own")
        self.dense = keras.layers.Dense(4, activation)

    def call(self, x):
        return self.dense(keras.ops.mean(x, (1, 2)) / 255)


def function(x):
    return tf.reduce_mean(tf.cast(x, "float32"), (1, 2)) @ tf.eye(3, 4) - 100.0


@pytest.mark.parametrize(
    "make",
    [
        classifier,
        lambda: keras.Model((m := classifier()).input, {"y": m.output}),
        lambda: sequential([keras.Input((8, 8, 3))]),
        lambda: keras.Model((i := keras.Input((8, 8, 3))), Own()(i)),
    ],
)
def test_a_plain_model_is_a_student_of_one_exit(make):
    model = make()
    before = model.get_weights()
    distiller = Distiller(model, classifier(), "kd")
    assert list(distiller.student.output) == ["exit_1"]
    distiller.compile("sgd", jit_compile=False)
    distiller.fit(IMAGES, LABELS, verbose=0)
    after = model.get_weights()  # the user's own model has learned
    assert any((a != b).any() for a, b in zip(after, before, strict=True))
    outputs = keras.tree.flatten(model(IMAGES))[0]
    np.testing.assert_allclose(distiller.student(IMAGES)["exit_1"], outputs, atol=1e-5)


@pytest.mark.parametrize(
    "teacher",
    [classifier(), sequential(), Own(), function, tf.function(function)],
    ids=["functional", "unbuilt sequential", "subclass", "function", "tf.function"],
)
def test_anything_that_gives_logits_teaches(teacher):
    distiller = Distiller(classifier(), teacher, "kd")
    distiller.compile("sgd", jit_compile=False)
    logs = distiller.fit(IMAGES, LABELS, verbose=0, shuffle=False).history
    assert np.isfinite(logs["kd/exit_1"][0])
    got = distiller.teacher_outputs(IMAGES)["exit_1"]
    np.testing.assert_allclose(got, teacher(IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.run
@pytest.mark.parametrize("signature", ["serve", "serving_default"])
def test_a_saved_model_teaches_the_same_numbers(signature, tmp_path):
    """`serve` returns a tensor, `serving_default` a dict of one, by its Keras name."""
    model = classifier()
    model.export(tmp_path / "teacher", verbose=False)
    teacher = keras.layers.TFSMLayer(tmp_path / "teacher", call_endpoint=signature)
    distiller = Distiller(classifier(), teacher, "kd")
    expected = np.asarray(model(IMAGES))
    got = distiller.teacher_outputs(IMAGES)["exit_1"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
    distiller.compile("sgd", jit_compile=False)
    by_model = Distiller(classifier(), model, "kd")
    by_model.student.set_weights(distiller.student.get_weights())
    by_model.compile("sgd", jit_compile=False)
    losses = [
        d.fit(IMAGES, LABELS, shuffle=False, verbose=0).history["loss"][0]
        for d in (distiller, by_model)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_plain_teachers_map_and_vector_are_read():
    teacher = classifier()
    for method in ("at", "rkd"):
        distiller = Distiller(classifier(), teacher, method)
        outputs = distiller.teacher_network(IMAGES)
        assert outputs
    with pytest.raises(UserError, match="reads feature_k of the teacher, which makes"):
        Distiller(classifier(), Own(), "at")


SOFTMAXES = [
    keras.ops.softmax,
    keras.activations.softmax,
    keras.layers.Softmax(),
    lambda x: keras.layers.Identity()(keras.layers.Softmax()(x)),
    lambda x: keras.layers.Reshape((4,))(keras.ops.softmax(x)),
    lambda x: keras.layers.Dense(4, activation="softmax")(x),
    lambda x: keras.layers.Average()([keras.ops.softmax(x), keras.ops.softmax(x)]),
    lambda x: keras.ops.exp(keras.ops.log_softmax(x)),
]


@pytest.mark.parametrize("end", SOFTMAXES)
def test_probabilities_of_a_teacher_become_logits(end, capsys):
    model = classifier(end)
    teacher = plain.as_teacher(model, classifier())
    assert "'classifier' gives probabilities" in capsys.readouterr().out
    p = np.asarray(model(IMAGES), "float64")
    np.testing.assert_allclose(teacher(IMAGES)["exit_1"], np.log(p), atol=1e-4)


def test_probabilities_of_a_class_of_ones_own_become_logits_too():
    model = Own("softmax")
    teacher = plain.as_teacher(model, classifier())
    p = np.asarray(model(IMAGES), "float64")
    np.testing.assert_allclose(teacher(IMAGES)["exit_1"], np.log(p), atol=1e-4)


class OfImages(Own):
    """Takes pixels alone."""

    def call(self, x):
        with tf.control_dependencies([tf.debugging.assert_less(x, 256.0)]):
            return super().call(tf.identity(x))


def test_small_logits_of_a_class_of_ones_own_are_no_probabilities():
    teacher = Own()
    teacher(IMAGES)
    teacher.set_weights([np.full((3, 4), 0.2), np.zeros(4)])
    got = plain.as_teacher(teacher, classifier())(IMAGES)["exit_1"]
    assert 0.2 < np.min(got) < np.max(got) < 0.4
    np.testing.assert_allclose(got, teacher(IMAGES), rtol=1e-5)
    for bounded in (Own("sigmoid"), OfImages("sigmoid")):
        with pytest.raises(UserError, match="teacher 'own' must be logits.*sigmoid"):
            plain.as_teacher(bounded, classifier())


def test_where_logits_are_promised_probabilities_are_refused():
    sigmoid, softmax = keras.ops.sigmoid, keras.ops.softmax
    with pytest.raises(UserError, match="teacher 'classifier' must be logits.*sigmoid"):
        Distiller(classifier(), classifier(sigmoid), "kd")
    with pytest.raises(UserError, match="student 'classifier' must be logits.*softmax"):
        Distiller(classifier(softmax), classifier(), "kd")
    model = classifier(softmax)
    named = keras.Model(model.input, {"exit_1": model.output})
    with pytest.raises(UserError, match="'exit_1' of the teacher.*pass a model with"):
        Distiller(classifier(), named, "kd")


def test_logits_are_not_taken_for_probabilities():
    for end in (None, keras.ops.relu, keras.ops.log_softmax, keras.ops.tanh):
        model = classifier(end)
        assert probabilities.kind_of_output(model, model.output) == "logits"
    assert probabilities.kind_of_rows(np.zeros((4, 3))) == "logits"
    assert probabilities.kind_of_rows(np.ones((4, 1))) == "logits"


def test_outputs_that_only_their_layers_name_become_a_dict(tmp_path):
    """One, as in a plain classifier whose last layer is called so, or several."""
    x = keras.Input((8,))
    early = keras.layers.Dense(3, name="exit_1")(x)
    last = keras.layers.Dense(3, name="exit_2")(early)
    rows = np.ones((2, 8), "float32")
    for outputs in (last, [early, last]):
        model = keras.Model(x, outputs)
        expected = keras.tree.flatten(model(rows))
        model.save(tmp_path / "net.keras")
        read = saving.load_model(tmp_path / "net.keras")
        for network in (plain.as_student(model), read):
            got = network(rows)
            assert list(got) == ["exit_1", "exit_2"][-len(expected) :]
            for one, other in zip(got.values(), expected, strict=True):
                np.testing.assert_array_equal(one, other)


def test_what_cannot_be_joined_is_refused():
    student = classifier()
    with pytest.raises(UserError, match=r"share 4 variables, 'conv/kernel' among"):
        Distiller(student, student, "kd")
    part = graph.sub_model(plain.as_student(student), "exit_1")
    with pytest.raises(UserError, match="share 4 variables"):
        Distiller(student, part, "kd")
    frozen = classifier()
    frozen.trainable = False
    with pytest.raises(UserError, match="'classifier' has nothing to train"):
        Distiller(frozen, method="ce")
    with pytest.raises(UserError, match=r"must be a functional .*, got a Own: pass"):
        Distiller(Own(), method="ce")
    with pytest.raises(UserError, match="got a Sequential"):
        Distiller(sequential(), method="ce")
    with pytest.raises(UserError, match="must be a Keras model or a function.*a int"):
        Distiller(student, 3, "kd")
    with pytest.raises(UserError, match="a function, cannot be called on a batch"):
        Distiller(student, lambda x: np.asarray(x).mean((1, 2)), "kd")
    maps = keras.Model(student.input, student.get_layer("conv").output)
    with pytest.raises(UserError, match=r"must be logits .* got \(None, 6, 6, 4\)"):
        Distiller(student, maps, "kd")


@pytest.mark.run
def test_a_network_learns_from_a_copy_of_itself_as_the_line_says():
    for student in (classifier(), add_exits(classifier(), ["conv"], 4, verbose=False)):
        with pytest.raises(
            UserError, match=r"keras.models.clone_model\(m\) with set_w"
        ):
            Distiller(student, student, "mskd")
        teacher = keras.models.clone_model(student)
        teacher.set_weights(student.get_weights())
        distiller = Distiller(student, teacher, "mskd")
        distiller.compile("sgd", run_eagerly=True)
        logs = distiller.train_step((IMAGES, LABELS))
        assert float(logs[f"kd/{distiller.exits[-1]}"]) == pytest.approx(0, abs=1e-5)
        pairs = zip(student.get_weights(), teacher.get_weights(), strict=True)
        assert any((one != other).any() for one, other in pairs)


def test_a_teacher_of_any_image_size_teaches():
    Distiller(classifier(), classifier(shape=(None, None, 3)), "kd")
    with pytest.raises(UserError, match=r"in image size: .* has \(16, 16, 3\)"):
        Distiller(classifier(), classifier(shape=(16, 16, 3)), "kd")
