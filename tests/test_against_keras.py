"""A Distiller of one exit that learns labels alone is plain Keras' `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mskd import SGD, Distiller, UserError, callbacks, load_model
from tf_mskd.methods import Method

pytestmark = pytest.mark.run  # seconds of building

layers, regularizers = keras.layers, keras.regularizers


class Penalty(layers.Layer):
    """Adds a loss of its own."""

    def call(self, x):
        self.add_loss(0.01 * keras.ops.mean(keras.ops.square(x)))
        return x


CASES = {
    "plain": {},
    "kernel regularizer": {"conv": {"kernel_regularizer": regularizers.L2(0.1)}},
    "activity regularizer": {"conv": {"activity_regularizer": regularizers.L1(1e-3)}},
    "regularizer of a batch norm": {"norm": {"gamma_regularizer": "l2"}},
    "activity of a batch norm": {"norm": {"activity_regularizer": "l2"}},
    "constraint": {"conv": {"kernel_constraint": keras.constraints.MaxNorm(0.2)}},
    "add_loss": {"between": Penalty},
    "dropout": {"between": lambda: layers.Dropout(0.5, seed=3)},
    "batch norm": {"norm": {}},
    "frozen batch norm": {"norm": {"trainable": False}},
    "frozen layer": {"conv": {"trainable": False, "kernel_regularizer": "l2"}},
    "sample weights": {"weight": np.arange(24, dtype="float32") % 3},
    "class weights": {"class_weight": {0: 2.0, 3: 0.0}},
    "one-hot labels": {"one_hot": True},
}


def network(conv=None, norm=None, between=None):
    """Two of them have the same weights and draw the same numbers."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(4, 3, strides=2, **(conv or {}))(x)
    if norm is not None:
        x = layers.BatchNormalization(**norm)(x)
    x = layers.ReLU()(x)
    if between is not None:
        x = between()(x)
    return image, layers.Dense(10, name="exit_1")(layers.Flatten()(x))


def both(weight=None, class_weight=None, one_hot=False, **parts):
    """A plain model and a Distiller, compiled alike, and the loss of the plain one."""
    kind = "CategoricalCrossentropy" if one_hot else "SparseCategoricalCrossentropy"
    loss = getattr(keras.losses, kind)(from_logits=True)
    image, logits = network(**parts)
    plain = keras.Model(image, logits)
    plain.compile(keras.optimizers.SGD(0.05, 0.9), loss, run_eagerly=True)
    image, logits = network(**parts)
    distiller = Distiller(keras.Model(image, {"exit_1": logits}), method="ce")
    distiller.compile(keras.optimizers.SGD(0.05, 0.9), run_eagerly=True)
    return plain, distiller


@pytest.mark.parametrize("name", CASES)
def test_fit_is_that_of_keras(name, digits):
    case = CASES[name]
    images, labels = digits[0][:24], digits[1][:24]
    if case.get("one_hot"):
        labels = np.eye(10, dtype="float32")[labels]
    arguments = {"sample_weight": case.get("weight")}
    arguments["class_weight"] = case.get("class_weight")
    found = []
    for model in both(**case):
        history = model.fit(
            images,
            labels,
            batch_size=10,
            epochs=2,
            shuffle=False,
            verbose=0,
            validation_data=(images[:9], labels[:9]),
            callbacks=[keras.callbacks.ReduceLROnPlateau("val_loss", 0.5, patience=1)],
            **arguments,
        ).history
        model = getattr(model, "student", model)
        found.append((history, model.get_weights()))
    (expected, weights), (got, after) = found
    for key in expected:  # loss, val_loss, learning_rate
        np.testing.assert_allclose(got[key], expected[key], 1e-4, 1e-5, err_msg=key)
    for one, other in zip(after, weights, strict=True):
        np.testing.assert_allclose(one, other, 1e-3, 1e-5, err_msg=name)


# ---- callbacks


@pytest.mark.parametrize(
    "monitor, better",
    [
        ("val_ensemble_accuracy", max),
        ("exit_1_accuracy", max),
        ("ce/exit_1", min),
        ("val_loss", min),
    ],
)
@pytest.mark.parametrize("kind", ["EarlyStopping", "ReduceLROnPlateau"])
def test_callbacks_know_which_way_is_better(kind, monitor, better, tiny, digits):
    distiller = Distiller(tiny(), method="ce")
    distiller.compile("sgd", run_eagerly=True)
    data = digits[0][:8], digits[1][:8]
    callback = getattr(keras.callbacks, kind)(monitor=monitor)
    distiller.fit(*data, verbose=0, validation_data=data, callbacks=[callback])
    for value in (-1.0, 100.0):
        callback.on_epoch_end(1, {monitor: value})
    assert callback.best == better(-1.0, 100.0)


# ---- networks that are trained again


def test_a_network_that_taught_can_be_trained(tiny, digits):
    images, labels = digits[0][:8], digits[1][:8]
    teacher = tiny()
    frozen = teacher.layers[2]
    frozen.trainable = False
    distiller = Distiller(tiny(), teacher, "mskd")
    distiller.compile("sgd", run_eagerly=True)
    taught = teacher.get_weights()
    distiller.train_step((images, labels))
    for one, other in zip(taught, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert teacher.trainable and not frozen.trainable
    assert not {id(v) for v in distiller.variables} & {id(v) for v in teacher.variables}
    again = Distiller(teacher, method="ce")
    again.compile("sgd", run_eagerly=True)
    again.train_step((images, labels))
    pairs = zip(taught, teacher.get_weights(), strict=True)
    assert not all(np.array_equal(one, other) for one, other in pairs)


def test_a_student_with_nothing_to_train_is_refused(tiny, digits):
    student = tiny()
    distiller = Distiller(student, method="ce")
    student.trainable = False  # a student that never had any is refused before
    distiller.compile("sgd", run_eagerly=True)
    with pytest.raises(UserError, match="has nothing to train: all its lay"):
        distiller.train_step((digits[0][:8], digits[1][:8]))


# ---- compile


def top(k):
    return keras.metrics.SparseTopKCategoricalAccuracy(k, name=f"top{k}")


def fitted(tiny, digits, weight=None, method="ce", **arguments):
    images, labels = digits[0][:16], digits[1][:16]
    keras.utils.set_random_seed(0)
    distiller = Distiller(tiny(), method=method)
    distiller.compile("sgd", run_eagerly=True, **arguments)
    history = distiller.fit(images, labels, verbose=0, sample_weight=weight).history
    told = distiller.evaluate(
        images, labels, verbose=0, return_dict=True, sample_weight=weight
    )
    logits = distiller.predict(images, verbose=0)
    return distiller, {n: v[0] for n, v in history.items()}, told, logits


def test_metrics_are_measured_at_every_exit_and_the_ensemble(tiny, digits):
    weight = np.arange(16, dtype="float32") % 4
    found = fitted(
        tiny, digits, weight, metrics=["accuracy", top(3)], weighted_metrics=[top(2)]
    )
    distiller, history, told, logits = found
    names = ["exit_1", "exit_2", "ensemble"]
    assert {f"{n}_top{k}" for n in names for k in (2, 3)} <= set(history) & set(told)
    logits["ensemble"] = sum(logits.values()) / 2
    labels = digits[1][:16]
    for name in names:
        rank = (logits[name] > logits[name][np.arange(16), labels][:, None]).sum(1)
        hits = [rank < k for k in (2, 3)]
        expected = np.average(hits[0], weights=weight), np.mean(hits[1])
        got = told[f"{name}_top2"], told[f"{name}_top3"]
        np.testing.assert_allclose(got, expected, 1e-5, err_msg=name)
    stop = keras.callbacks.EarlyStopping(monitor="exit_2_top3")
    distiller.fit(digits[0][:8], digits[1][:8], callbacks=[stop], verbose=0)
    assert stop.mode == "max"


def test_the_loss_of_compile_is_that_of_the_labels_at_every_exit(tiny, digits):
    def doubled(labels, logits):
        loss = keras.losses.sparse_categorical_crossentropy
        return 2 * loss(labels, logits, from_logits=True)

    _, plain, told, _ = fitted(tiny, digits)
    _, history, told_of_both, _ = fitted(tiny, digits, loss=doubled)
    for name in ("loss", "ce/exit_1", "ce/exit_2"):
        np.testing.assert_allclose(history[name], 2 * plain[name], 1e-4, err_msg=name)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    _, history, again, _ = fitted(tiny, digits, loss=loss, method="byot")
    assert np.isfinite(history["loss"]) and told_of_both["loss"] > told["loss"]
    smooth = keras.losses.CategoricalCrossentropy(True, label_smoothing=0.1)
    distiller = Distiller(tiny(), tiny(), "mskd,at")
    distiller.compile("sgd", loss=smooth, run_eagerly=True)
    one_hot = np.eye(10, dtype="float32")[digits[1][:8]]
    logs = distiller.train_step((digits[0][:8], one_hot))
    assert np.isfinite(logs["loss"])
    with pytest.raises(UserError, match="categorical_crossentropy .* not take labels"):
        distiller.train_step((digits[0][:8], digits[1][:8]))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"loss": "sparse_categorical_crossentropy"}, "loss .*probabilities, .*logits"),
        ({"loss": keras.losses.CategoricalCrossentropy()}, "reads probabilities"),
        ({"loss": {"exit_1": "mse"}}, "one loss for all exits, got dict: .*exit_weig"),
        ({"loss": "corssentropy"}, "Unknown loss 'corssentropy' in compile: pass a na"),
        ({"metrics": {"exit_1": "mse"}}, "metrics as a list, .*, got a dict"),
        ({"metrics": ["acuracy"]}, "Unknown metric 'acuracy' in compile"),
        ({"weighted_metrics": [keras.metrics.AUC()]}, "metric .*reads probabilities"),
        ({"loss_weights": [1, 2]}, "takes no loss_weights: pass term_weights and exit"),
    ],
)
def test_what_compile_cannot_use_is_refused(arguments, message, tiny):
    with pytest.raises(UserError, match=message):
        Distiller(tiny(), method="ce").compile("sgd", **arguments)


# ---- files


def test_a_distiller_is_saved_without_its_teacher_and_goes_on(tiny, digits, tmp_path):
    images, labels = digits[0][:16], digits[1][:16]
    arguments = dict(verbose=0, shuffle=False, batch_size=8)
    teacher = tiny(width=1 / 4)
    weights = {"kd": 0.5}
    distiller = Distiller(tiny(), teacher, "mskd,fitnet", term_weights=weights)
    distiller.compile(SGD(0.1), metrics=[top(3)], run_eagerly=True)
    path = tmp_path / "best.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(str(path))
    distiller.fit(images, labels, callbacks=[checkpoint], **arguments)
    assert path.stat().st_size < 4 * sum(w.nbytes for w in teacher.get_weights())
    again = keras.saving.load_model(path)
    assert again.method.registry_name == "mskd,fitnet"
    told = [
        model.evaluate(images, labels, verbose=0, return_dict=True)
        for model in (distiller, again)
    ]
    assert told[0] == told[1] and "exit_1_top3" in told[0]
    with pytest.raises(UserError, match="no weights of the teacher .*set_weights"):
        again.fit(images, labels, **arguments)
    again.teacher.set_weights(teacher.get_weights())
    for model in (distiller, again):
        model.fit(images, labels, **arguments)
    for one, other in zip(
        distiller.state_variables, again.state_variables, strict=True
    ):
        np.testing.assert_allclose(one, other, 1e-5, 1e-6, err_msg=one.path)


def test_weights_alone_are_saved_without_the_teacher(tiny, digits, tmp_path):
    teacher, student = tiny(width=1 / 2), tiny()
    distiller = Distiller(student, teacher, "mskd")
    distiller.compile("sgd")
    distiller.save_weights(tmp_path / "state.weights.h5")
    size = (tmp_path / "state.weights.h5").stat().st_size
    assert size < sum(w.nbytes for w in teacher.get_weights())
    before = student.get_weights()
    student.set_weights([0 * w for w in before])
    distiller.load_weights(tmp_path / "state.weights.h5")
    for one, other in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_teacher_that_learns_is_saved(tiny, tmp_path):
    distiller = Distiller(tiny(), tiny(), "dml", phases="progressive")
    distiller.set_phase(2)
    distiller.compile(SGD(0.1), run_eagerly=True)
    distiller.save(tmp_path / "both.keras")
    again = keras.saving.load_model(tmp_path / "both.keras")
    for one, other in zip(
        distiller.teacher.get_weights(), again.teacher.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert again.phase == 2 and again.phases == "progressive"


def test_a_method_without_a_name_is_not_saved(tiny, tmp_path):
    class Mine(Method):
        needs_teacher = False

        def call(self, student, teacher, targets):
            return self.label_terms(student, targets)

    distiller = Distiller(tiny(), method=Mine())
    with pytest.raises(UserError, match="Mine has none: give it one with @tf_mskd"):
        distiller.get_config()


def test_predict_and_export_work_before_fit(tiny, digits, tmp_path):
    images = digits[0][:4]
    distiller = Distiller(tiny(), method="ce")
    guess = distiller.predict(images, verbose=0)
    distiller.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    served = exported.serve(images)
    for name, value in guess.items():
        np.testing.assert_allclose(served[name], value, 1e-3, 1e-4)


def test_the_best_student_is_kept_under_fit(tiny, digits, tmp_path):
    images, labels = digits[0][:16], digits[1][:16]
    distiller = Distiller(tiny(), method="ce")
    distiller.compile("sgd", run_eagerly=True)
    best = callbacks.BestStudent(tmp_path / "best.keras", "ensemble_accuracy")
    distiller.fit(images, labels, callbacks=[best], verbose=0)
    got = load_model(tmp_path / "best.keras").get_weights()
    for one, other in zip(got, distiller.student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    missing = callbacks.BestStudent(tmp_path / "other.keras")
    with pytest.raises(UserError, match="'val_ensemble_accuracy', .* did you mean 'en"):
        distiller.fit(images, labels, callbacks=[missing], verbose=0)
