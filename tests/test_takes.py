"""What Distiller takes beside what keras.distillation.Distiller takes.

Each row of the table in docs/python.md is proven by the test of its name.
"""

import pathlib
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models.test_foreign import text, two_inputs
from tests.support import Command
from tf_mskd import SGD, Distiller, UserError, add_exits
from tf_mskd.methods import Method
from tf_mskd.tasks.softmax import softened_kl

pytestmark = pytest.mark.run  # seconds of building

layers, keras_distillation = keras.layers, keras.distillation
RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(8, 5)).astype("float32")
LABELS = np.arange(8) % 4
ONE_HOT = np.eye(4, dtype="float32")[LABELS]
FROM_LOGITS = {"from_logits": True}
SPARSE = keras.losses.SparseCategoricalCrossentropy(**FROM_LOGITS)
PAGE = pathlib.Path(__file__).parents[1] / "docs" / "python.md"


def table_rows():
    """The first cells of the table, as the names of tests."""
    section = PAGE.read_text().partition("## Beside keras.distillation")[2]
    cells = re.findall(r"^\| ([a-z].+?) \|", section.partition("\n## ")[0], re.M)
    return ["test_" + cell.replace(" ", "_") for cell in cells]


def dense(units=6, classes=4, end=None, norm=False, **first):
    row = keras.Input((5,))
    x = layers.Dense(units, name="one", **first)(row)
    if norm:
        x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(row, layers.Dense(classes, end, name="two")(x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

    def call(self, x):
        return self.dense(x)


def copy(model):
    made = keras.models.clone_model(model)
    made.set_weights(model.get_weights())
    return made


def ours(student=None, teacher=None, method="mskd", compiled=None, **arguments):
    student = dense() if student is None else student
    teacher = dense() if teacher is None else teacher
    distiller = Distiller(student, teacher, method, **arguments)
    distiller.compile(**{"optimizer": "sgd", "run_eagerly": True, **(compiled or {})})
    return distiller


def theirs(student=None, teacher=None, loss=None, compiled=None, **arguments):
    distiller = keras_distillation.Distiller(
        student=dense() if student is None else student,
        teacher=dense() if teacher is None else teacher,
        distillation_losses=loss or keras_distillation.LogitsDistillation(3.0),
        **arguments,
    )
    settings = {"optimizer": "sgd", "loss": SPARSE, "run_eagerly": True}
    distiller.compile(**{**settings, **(compiled or {})})
    return distiller


def step(distiller, x=ROWS, y=LABELS, **arguments):
    """The logs of one step, which are numbers."""
    logs = distiller.train_on_batch(x, y, return_dict=True, **arguments)
    assert np.isfinite(list(logs.values())).all(), logs
    return logs


def features(loss="mse", layer="one"):
    return keras_distillation.FeatureDistillation(loss, layer, layer)


# ---- networks


def test_plain_model():
    for make in (ours, theirs):
        step(make())
        pair = ([keras.Input((5,)), layers.Dense(4)] for _ in range(2))
        step(make(*map(keras.Sequential, pair)))


def test_subclassed_student():
    step(theirs(Subclassed()))
    student = Subclassed()
    with pytest.raises(UserError, match="pass keras.Model.x, model.x.. with x = keras"):
        ours(student)
    row = keras.Input((5,))
    step(ours(keras.Model(row, student(row))))


@pytest.mark.filterwarnings("ignore:`build")  # of Keras' Distiller
def test_subclassed_teacher():
    for make in (ours, theirs):
        step(make(teacher=Subclassed()))


def test_function_as_teacher():
    step(ours(teacher=lambda rows: 2 * rows[:, :4]))
    with pytest.raises(ValueError, match="Teacher must be a keras.Model"):
        theirs(teacher=lambda rows: 2 * rows[:, :4])


def test_several_inputs():
    for make in (ours, theirs):
        for kind in (list, dict):
            (student, x), (teacher, _) = two_inputs(kind), two_inputs(kind)
            step(make(student, teacher), x)


def test_text():
    for make in (ours, theirs):
        (student, tokens), (teacher, _) = text(), text()
        step(make(student, teacher), tokens)


def test_several_exits():
    student = add_exits(dense(), ["one"], 4)
    assert "exit_2_accuracy" in step(ours(student))
    with pytest.raises(ValueError, match="arity mismatch"):
        theirs(student)


def test_probabilities_of_a_teacher():
    teacher = dense()
    softmax = keras.Model(teacher.input, layers.Softmax()(teacher.output))
    found = {}
    for make, term in ((ours, "kd/exit_1"), (theirs, "distillation_loss")):
        student = dense()
        logs = [step(make(copy(student), t))[term] for t in (teacher, softmax)]
        found[make] = np.isclose(*logs, rtol=1e-4)
    assert found == {ours: True, theirs: False}


def test_several_labels():
    several = np.eye(4, dtype="float32")[LABELS] + np.eye(4, dtype="float32")[2]
    several = np.minimum(several, 1)
    logs = step(ours(task="multi_label"), y=several)
    assert logs["exit_1_binary_accuracy"] >= 0
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    logs = step(theirs(loss=features(layer=None), compiled={"loss": loss}), y=several)
    assert logs["student_loss"] > 0


def test_outputs_that_are_no_classes():
    logs = step(
        theirs(
            dense(classes=1), dense(classes=1), features(layer=None), {"loss": "mse"}
        ),
        y=ROWS[:, :1],
    )
    assert logs["student_loss"] > 0
    with pytest.raises(UserError, match="one logit"):
        ours(dense(classes=1), dense(classes=1))
    with pytest.raises(UserError, match="regression"):
        step(ours(), y=ROWS[:, 0])


@pytest.mark.filterwarnings("ignore:.*structure of `inputs`")  # of Keras' Distiller
def test_features():
    narrow, wide = (add_exits(dense(n), ["one"], 4) for n in (6, 9))
    assert any(name.startswith("pkt/") for name in step(ours(narrow, wide, "mskd,pkt")))
    assert step(theirs(loss=features()))["distillation_loss"] > 0
    with pytest.raises(tf.errors.InvalidArgumentError, match="Incompatible shapes"):
        step(theirs(teacher=dense(9), loss=features()))


def test_loss_of_your_own():
    class Mine(Method):
        default_weights = {"mine": 1.0}

        def output_pairs(self, student, teacher):
            return {"exit_1": ("exit_1",)}

        def call(self, student, teacher, targets):
            difference = student["exit_1"] - teacher["exit_1"]
            return {"mine/exit_1": keras.ops.mean(difference**2, axis=-1)}

    class Theirs(keras_distillation.DistillationLoss):
        def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
            return keras.ops.mean(keras.ops.square(teacher_outputs - student_outputs))

    student, teacher = dense(), dense()
    expected = np.mean((student(ROWS) - teacher(ROWS)) ** 2)
    got = step(ours(copy(student), teacher, Mine()))["mine/exit_1"]
    np.testing.assert_allclose(got, expected, 1e-4)
    got = step(theirs(copy(student), teacher, Theirs()))["distillation_loss"]
    np.testing.assert_allclose(got, expected, 1e-4)


def test_teacher_that_learns():
    for make, learns in ((ours, True), (theirs, False)):
        teacher = dense()
        before = teacher.get_weights()
        arguments = {"method": "dml"} if make is ours else {}
        step(make(teacher=teacher, **arguments))
        pairs = zip(before, teacher.get_weights(), strict=True)
        assert any(not np.array_equal(*pair) for pair in pairs) == learns


# ---- labels, losses, metrics


def test_labels():
    student, logs = dense(), []
    for labels in (LABELS, LABELS[:, None].astype("float32"), ONE_HOT):
        logs.append(step(ours(copy(student)), y=labels)["ce/exit_1"])
    np.testing.assert_allclose(logs, logs[0], 1e-5)
    step(theirs(), y=LABELS[:, None])
    with pytest.raises(ValueError, match="rank"):
        step(theirs(), y=ONE_HOT)
    categorical = keras.losses.CategoricalCrossentropy(**FROM_LOGITS)
    step(theirs(compiled={"loss": categorical}), y=ONE_HOT)


def test_wrong_labels():
    with pytest.raises(UserError, match="Labels must be class numbers 0..3, got 4"):
        step(ours(), y=LABELS + 1)
    with pytest.raises(tf.errors.InvalidArgumentError):  # on a CPU; a GPU says NaN
        step(theirs(), y=LABELS + 1)


def test_no_labels():
    logs = ours(term_weights={"ce": 0.0}).fit(ROWS, verbose=0).history
    assert logs["kd/exit_1"][0] > 0
    logs = theirs(student_loss_weight=0.0).fit(ROWS, verbose=0).history
    assert logs["distillation_loss"][0] > 0


def test_label_loss():
    end = {"loss": keras.losses.SparseCategoricalCrossentropy()}
    with pytest.raises(UserError, match="reads probabilities"):
        ours(compiled=end)
    softmax = dense(end="softmax")
    step(theirs(softmax, loss=features(layer=None), compiled=end))
    smooth = keras.losses.CategoricalCrossentropy(True, label_smoothing=0.1)
    for make in (ours, theirs):
        step(make(compiled={"loss": smooth}), y=ONE_HOT)


def test_metrics():
    top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
    student = add_exits(dense(), ["one"], 4)
    logs = step(ours(student, compiled={"metrics": [top]}))
    assert {"exit_1_top2", "exit_2_top2", "ensemble_top2"} <= logs.keys()
    assert "top2" in step(theirs(compiled={"metrics": [top]}))


def weighted(make, **arguments):
    """Whether weights change the loss."""
    student, teacher = dense(), dense()
    plain = step(make(copy(student), teacher))["loss"]
    return not np.isclose(
        step(make(copy(student), teacher), **arguments)["loss"], plain
    )


def test_sample_weights():
    weight = np.arange(8, dtype="float32")
    assert weighted(ours, sample_weight=weight)
    assert not weighted(theirs, sample_weight=weight)


def test_class_weights():
    weight = {0: 3.0, 1: 0.0, 2: 1.0, 3: 1.0}
    assert weighted(ours, class_weight=weight)
    assert not weighted(theirs, class_weight=weight)


def test_regularizers():
    student, teacher = dense(kernel_regularizer="l2"), dense()
    added = float(sum(student.losses))
    plain = dense()
    plain.set_weights(student.get_weights())
    for make, counts in ((ours, True), (theirs, False)):
        loss = step(make(copy(student), teacher))["loss"]
        difference = loss - step(make(copy(plain), teacher))["loss"]
        np.testing.assert_allclose(difference, added * counts, 1e-3, 1e-5)


# ---- training


def test_data():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return ROWS, LABELS

    for make in (ours, theirs):
        distiller = make()
        dataset = tf.data.Dataset.from_tensors((ROWS, LABELS))
        generator = ((ROWS, LABELS) for _ in range(9))
        for data in (dataset, Batches(), generator):
            distiller.fit(data, verbose=0, shuffle=False, steps_per_epoch=1)


def test_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        student, teacher = dense(), dense()
        logits = [np.float64(m(ROWS)) for m in (student, teacher)]
        got = step(ours(copy(student), teacher))["kd/exit_1"]
        rounded = step(theirs(copy(student), teacher))["distillation_loss"]
    finally:
        keras.config.set_dtype_policy(before)
    expected = np.mean(softened_kl(logits[1], logits[0], 4.0))
    np.testing.assert_allclose(got, expected, 1e-3)
    assert rounded == float(tf.cast(rounded, tf.bfloat16))


def test_several_devices(tmp_path):
    """The second device of a CPU exists only in a process that asks for it first."""
    command = Command("tests.test_takes", tmp_path / "moves.npz")
    done = command.finish()
    assert done.returncode == 0, done.stderr[-2000:]
    moves = np.load(tmp_path / "moves.npz")
    np.testing.assert_allclose(moves["ours 2"], moves["ours 1"], 1e-3, 1e-5)
    np.testing.assert_allclose(moves["theirs 2"], 2 * moves["theirs 1"], 1e-3, 1e-5)


def moves_of(make, strategy, student, teacher):
    """How a step of SGD on all rows moves a weight, from distillation alone."""
    with strategy.scope():
        copies = copy(student), copy(teacher)
        settings = {"optimizer": SGD(1.0, 0.0), "run_eagerly": False}
        settings["jit_compile"] = False
        only = (
            {"term_weights": {"ce": 0.0}}
            if make is ours
            else {"student_loss_weight": 0.0}
        )
        distiller = make(*copies, compiled=settings, **only)
    data = tf.data.Dataset.from_tensor_slices((ROWS, LABELS)).batch(8)
    distiller.fit(data, verbose=0)
    return copies[0].get_weights()[0] - student.get_weights()[0]


def main(path):
    device = tf.config.LogicalDeviceConfiguration()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [device, device])
    strategies = (
        tf.distribute.OneDeviceStrategy("CPU:0"),
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    )
    student, teacher = dense(), dense()
    moves = {
        f"{make.__name__} {devices}": moves_of(make, strategy, student, teacher)
        for make in (ours, theirs)
        for devices, strategy in enumerate(strategies, start=1)
    }
    np.savez(path, **moves)


def test_teacher_computed_ahead():
    student, teacher = dense(), dense()
    expected = step(ours(copy(student), teacher))
    distiller = ours(copy(student), teacher)
    targets = {"label": LABELS, "teacher": distiller.teacher_network(ROWS)}
    assert step(distiller, y=targets) == pytest.approx(expected)
    with pytest.raises(ValueError, match="nested structure"):
        step(theirs(), y=targets)


def test_evaluation():
    for make, loss in ((ours, {"method": "mskd"}), (theirs, {"loss": features()})):
        student = dense(norm=True)
        distiller = make(student, dense(norm=True), **loss)
        before = student.get_weights()
        logs = distiller.evaluate(ROWS, LABELS, verbose=0, return_dict=True)
        pairs = zip(before, student.get_weights(), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs) == (make is ours)
        assert ("distillation_loss" in logs) == (make is theirs)


def test_teacher_afterwards():
    for make in (ours, theirs):
        teacher = dense()
        before = teacher.get_weights()
        step(make(teacher=teacher))
        for one, other in zip(before, teacher.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        assert teacher.trainable == (make is ours)


def test_callbacks():
    for make, monitor in ((ours, "val_exit_1_accuracy"), (theirs, "val_total_loss")):
        fit = {"validation_data": (ROWS, LABELS), "verbose": 0}
        stop = keras.callbacks.EarlyStopping(monitor)
        if make is ours:
            make().fit(ROWS, LABELS, callbacks=[stop], **fit)
            assert stop.best is not None
        else:
            with pytest.raises(ValueError, match="maximized or minimized"):
                make().fit(ROWS, LABELS, callbacks=[stop], **fit)


# ---- files


@pytest.mark.filterwarnings("ignore:`compile")  # of Keras' Distiller
def test_saving(tmp_path):
    path, wide = tmp_path / "d.keras", dense(3000)
    size = sum(weight.nbytes for weight in wide.get_weights())
    for make, stored in ((ours, False), (ours, True), (theirs, True)):
        arguments = {"store_teacher": stored} if make is ours else {}
        distiller = make(teacher=wide, **arguments)
        distiller.fit(ROWS, LABELS, verbose=0)
        distiller.save(path)
        assert (path.stat().st_size > size) == stored
        again = keras.saving.load_model(path)
        if make is ours and stored:
            step(again)
        elif make is theirs:
            with pytest.raises(AttributeError, match="_student_loss"):
                step(again)
            again.compile("sgd", SPARSE, run_eagerly=True)
            step(again)


def test_backup_and_restore(tmp_path):
    for make in (ours, theirs):
        backup = keras.callbacks.BackupAndRestore(tmp_path / make.__name__)
        distiller = make()
        if make is theirs:
            with pytest.raises(ValueError, match="must be built before you call"):
                distiller.fit(ROWS, LABELS, callbacks=[backup], verbose=0)
            distiller(ROWS)
        distiller.fit(ROWS, LABELS, callbacks=[backup], verbose=0)


def test_export(tmp_path):
    for make in (ours, theirs):
        distiller = make()
        distiller.fit(ROWS, LABELS, verbose=0)
        distiller.export(tmp_path / make.__name__, verbose=False)
        exported = tf.saved_model.load(tmp_path / make.__name__)
        (got,) = tf.nest.flatten(exported.serve(ROWS))
        (expected,) = tf.nest.flatten(distiller.student(ROWS))
        np.testing.assert_allclose(got, expected, 1e-4, 1e-5)


# ---- the table


def test_every_row_has_its_test():
    tests = [n for n in globals() if n.startswith("test_") and "every_row" not in n]
    assert table_rows() == tests


if __name__ == "__main__":
    main(sys.argv[1])
