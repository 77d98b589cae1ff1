"""The look at what a teacher makes of the first batch, and the rule of chance."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mskd import SGD, Distiller, UserError
from tf_mskd.runs.measurement import report_teacher
from tf_mskd.tasks import create_task
from tf_mskd.training.chance import is_at_chance, warn_at_chance
from tf_mskd.training.evaluation import Evaluator

ROWS = 64
RANDOM = np.random.default_rng(0)


def knowing(share):
    """A teacher of [B, 3] that reads the class from the first number, if it knows."""

    def teacher(x):
        right = tf.cast(x[:, :1] + tf.cast(x[:, 1:2] >= share, "float32"), "int32") % 4
        return 9.0 * tf.one_hot(right[:, 0], 4)

    return teacher


def data():
    labels = np.arange(ROWS) % 4
    parts = np.linspace(0, 1, ROWS, endpoint=False)
    x = np.stack([labels, RANDOM.permutation(parts), np.zeros(ROWS)], 1)
    return x.astype("float32"), labels


def distiller(teacher, method="kd", **arguments):
    row = keras.Input((3,))
    student = keras.Model(row, keras.layers.Dense(4)(row))
    made = Distiller(student, teacher, method, **arguments)
    made.compile(SGD(0.1), run_eagerly=True)
    return made


class Late(keras.layers.Layer):
    """Probabilities that no look at the graph and no run on random rows shows."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 4))

    def call(self, inputs):
        return keras.ops.softmax(keras.ops.matmul(inputs, self.kernel))


class Sequence(keras.utils.PyDataset):
    def __init__(self, arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.arrays


def dataset(arrays, batches=1):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(ROWS // batches)


FORMS = {
    "arrays": lambda arrays: arrays,
    "dict": lambda arrays: (arrays[0], {"label": arrays[1][:, None]}),
    "one-hot": lambda arrays: (arrays[0], np.eye(4)[arrays[1]]),
    "PyDataset": lambda arrays: (Sequence(arrays),),
    "generator": lambda arrays: ((batch for batch in [arrays]),),
    "Dataset": lambda arrays: (dataset(arrays),),
    "Dataset of two": lambda arrays: (dataset(arrays, 2).map(lambda *b: b),),
}


@pytest.mark.run
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("form", FORMS)
def test_the_first_batch_tells_what_a_teacher_knows(form, capsys):
    made = distiller(knowing(0.75))
    x, y = data()
    if form == "Dataset of two":
        order = np.argsort(x[:, 1] >= 0.75, kind="stable")  # the first half is right
        x, y = x[order], y[order]
    made.fit(*FORMS[form]((x, y)), batch_size=ROWS, shuffle=False, verbose=2)
    told = [s for s in capsys.readouterr().out.splitlines() if s.startswith("teacher")]
    rows, right = (32, 100) if form == "Dataset of two" else (64, 75)
    assert told == [
        f"teacher 'teacher' on the first {rows} examples: exit_1 {right}.00 %"
    ]
    made.fit(x, y, verbose=2)
    assert "teacher 'teacher'" not in capsys.readouterr().out  # once


@pytest.mark.run
@pytest.mark.parametrize("verbose", [0, 2])
@pytest.mark.parametrize("form", ["arrays", "Dataset"])
def test_a_teacher_at_chance_level_is_warned_of(form, verbose, capsys):
    made = distiller(knowing(0.0))
    made.fit(*FORMS[form](data()), batch_size=ROWS, shuffle=False, verbose=verbose)
    told = capsys.readouterr()
    assert ("on the first 64 examples: exit_1 0.00 %" in told.out) == bool(verbose)
    (line,) = told.err.splitlines()
    message = "warning: teacher 'teacher' is at chance level on the first 64 examples "
    assert line.startswith(f"{message}(exit_1): check that it has its weights")


@pytest.mark.run
def test_where_there_is_nothing_to_tell_nothing_is_told(capsys):
    x, y = data()
    distiller(None, "ce").fit(x, y, verbose=0)
    distiller(knowing(1.0), "ce").fit(x, y, verbose=2)
    distiller(knowing(0.0)).fit(x[:8], y[:8], verbose=0)  # too few to tell
    assert "teacher" not in "".join(capsys.readouterr())
    distiller(knowing(0.0), term_weights={"ce": 0.0}).fit(x, verbose=2)  # no labels
    assert "teacher" not in "".join(capsys.readouterr())


@pytest.mark.run
@pytest.mark.parametrize("form", ["arrays", "PyDataset", "generator", "Dataset", "x"])
def test_probabilities_that_show_only_now_are_refused(form):
    rows = keras.Input((None,))
    teacher = keras.Model(rows, Late()(rows), name="late")
    weights = {"term_weights": {"ce": 0.0}} if form == "x" else {}
    made = distiller(teacher, **weights)
    x = RANDOM.normal(size=(ROWS, 3)).astype("float32")
    arrays = (x, np.arange(ROWS) % 4)
    given = (x,) if form == "x" else FORMS[form](arrays)
    with pytest.raises(UserError, match="exit_1 of the teacher 'late' must be logits"):
        made.fit(*given, shuffle=False, verbose=0)


@pytest.mark.run
def test_rows_delivered_with_the_data_are_looked_at(capsys):
    made = distiller(lambda x: x @ tf.zeros((3, 4)))
    x, y = data()
    rows = 5.0 * np.eye(4, dtype="float32")[y]
    batch = (x, {"label": y, "teacher": {"exit_1": rows}})
    made.fit(tf.data.Dataset.from_tensors(batch), shuffle=False, verbose=2)
    assert "first 64 examples: exit_1 100.00 %" in capsys.readouterr().out
    made = distiller(lambda x: x @ tf.zeros((3, 4)))
    batch[1]["teacher"]["exit_1"] = np.eye(4, dtype="float32")[y]
    with pytest.raises(UserError, match=r"must be logits, got probabilities"):
        made.fit(tf.data.Dataset.from_tensors(batch), shuffle=False, verbose=0)


@pytest.mark.run
def test_a_look_at_a_dataset_changes_no_order_and_no_state():
    """Shuffled anew each epoch by one seed: an iteration more would show."""
    x, y = data()

    def order(teacher, method):
        numbers, seen = np.arange(ROWS, dtype="float32"), []
        stream = tf.data.Dataset.from_tensor_slices((x, y, numbers))
        made = distiller(teacher, method)
        step = made.train_step
        made.train_step = lambda batch: (seen.extend(batch[2].numpy()), step(batch))[1]
        stream = stream.shuffle(ROWS, seed=1).batch(16)
        made.fit(stream, epochs=2, verbose=0, shuffle=False)
        return seen

    looked, unlooked = order(knowing(1.0), "kd"), order(None, "ce")
    assert looked == unlooked and looked[:ROWS] != looked[ROWS:]


# ---- the rule


def test_the_bound_of_chance_by_hand():
    labels = np.arange(64) % 4
    # a binomial of 64 and 1/4 is at most 23 with 98.2 %, at most 24 with 99.1 %
    for hits, low in ((0, True), (16, True), (24, True), (25, False), (64, False)):
        predicted = (labels + (np.arange(64) >= hits)) % 4
        shares = [np.bincount(v, minlength=4) / 64 for v in (predicted, labels)]
        assert shares[0] @ shares[1] == pytest.approx(0.25, abs=0.02)
        assert is_at_chance(predicted, labels) == low, hits


def test_one_guess_is_chance_whatever_the_share_of_its_class():
    labels = (np.arange(2000) % 10 == 0).astype(int)  # nine of ten are of class 0
    assert is_at_chance(np.zeros(2000, int), labels)
    better = np.where(np.arange(2000) % 20 == 0, 1, 0)
    assert not is_at_chance(better, labels)  # half of the rare class found


def test_what_cannot_be_told_is_not_told():
    some = np.arange(10).repeat(4)
    assert not is_at_chance(some[::-1] % 2, some % 2)  # too few of two classes
    assert not is_at_chance(np.zeros(500, int), np.zeros(500, int))  # of one class
    assert is_at_chance(some + 1, some)  # classes numbered from 1


def test_guessing_is_found_and_a_weak_teacher_left_alone():
    classes, rows = 10, 64
    labels = np.arange(rows) % classes
    found = right = 0
    for _ in range(200):
        guesses = RANDOM.integers(0, classes, rows)
        found += is_at_chance(guesses, labels)
        known = np.where(RANDOM.random(rows) < 0.5, labels, guesses)
        right += not is_at_chance(known, labels)
    assert found >= 190 and right >= 198


def test_exits_at_chance_are_named(capsys):
    labels = np.arange(64) % 4
    good = np.eye(4)[labels]
    logits = {"exit_1": good[::-1], "exit_2": good}
    warn_at_chance("big", logits, labels, "the test split")
    line = capsys.readouterr().err
    assert line.startswith(
        "warning: teacher 'big' is at chance level on the test split"
    )
    assert "(exit_1):" in line


@pytest.mark.run
def test_the_command_warns_of_a_teacher_that_knows_nothing(tiny, digits, capsys):
    images, labels = digits[0][:200], digits[1][:200]
    batch = (images, {"label": labels}, np.ones(200, "float32"))
    stream = tf.data.Dataset.from_tensors(batch)
    test = Evaluator(tf.distribute.get_strategy(), stream)
    report_teacher(tiny(), create_task("classification"), test)
    told = capsys.readouterr()
    assert "teacher resnet10, on the test split: exit_1" in told.out
    assert "is at chance level on the test split (exit_1, exit_2): check" in told.err


def test_numbers_between_0_and_1_are_warned_of_where_answers_are_yes_or_no(capsys):
    x = np.random.default_rng(0).random((ROWS, 3)).astype("float32")
    y = (x > 0.5).astype("float32")

    def between(batch):  # no layer says what it makes
        return tf.identity(batch)

    row = keras.Input((3,))
    student = keras.Model(row, keras.layers.Dense(3)(row))
    made = Distiller(student, between, "mskd", task="multi_label")
    made.compile("sgd", run_eagerly=True, jit_compile=False)
    made.fit(x[:8], y[:8], verbose=0)  # too few to tell
    assert "it seems" not in capsys.readouterr().err
    again = Distiller(student, between, "mskd", task="multi_label")
    again.compile("sgd", run_eagerly=True, jit_compile=False)
    again.fit(x, y, batch_size=ROWS, verbose=0)
    told = capsys.readouterr().err
    assert "warning: it seems that exit_1 of the teacher" in told
    assert "got probabilities (sigmoid) on the first batch" in told
