"""What every task promises, and what each of them takes and refuses."""

import keras
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tests import reference
from tf_mskd import SGD, Distiller, UserError, add_exits, create_model
from tf_mskd.tasks import create_task
from tf_mskd.tasks.meter import Meter
from tf_mskd.training.label_checks import check_labels
from tf_mskd.utils.choices import TASKS

SHAPES = {
    "classification": (5,),
    "multi_label": (5,),
    "binary": (1,),
    "segmentation": (4, 4, 5),
    "restoration": (12, 12, 3),
    "hashing": (32,),
}
RANDOM = np.random.default_rng(0)


def label_of(task, rows=6):
    shape = SHAPES[task.name]
    if task.name in ("classification", "hashing"):
        return np.arange(rows) % 5
    if task.name == "segmentation":
        return RANDOM.integers(0, shape[-1], (rows, *shape[:2]))
    return (RANDOM.random((rows, *shape)) > 0.5).astype("float32")


@pytest.fixture(params=TASKS)
def task(request):
    return create_task(request.param)


def test_the_file_of_a_task_is_its_name(task):
    assert type(task).__module__ == f"tf_mskd.tasks.{task.name}"
    assert create_task(task) is task


def test_unknown_tasks_are_refused():
    with pytest.raises(UserError, match="Unknown task 'multilabel'; .*'multi_label'"):
        create_task("multilabel")
    with pytest.raises(UserError, match="task must be a name or a Task, got 3"):
        create_task(3)


def test_losses_and_quality_keep_the_batch_axis(task):
    shape, label = SHAPES[task.name], label_of(task)
    output = RANDOM.normal(size=(6, *shape)).astype("float32")
    label = task.read_label(label, shape)
    assert tuple(label.shape[1:]) == task.label_spec(shape)[0]
    np.testing.assert_array_equal(task.read_label(label, shape), label)
    found = (
        task.label_loss(label, output),
        task.imitation(output[::-1], output, 3.0),
        task.quality(label, output),
    )
    for value in found:
        assert value.shape == (6,) and value.dtype == "float32"
    np.testing.assert_allclose(task.imitation(output, output, 3.0), 0, atol=1e-6)
    if task.unit == "%":
        assert 0 <= np.min(found[2]) and np.max(found[2]) <= 1


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_the_vote_of_equal_exits_is_their_answer(task, kind):
    output = RANDOM.normal(size=(6, *SHAPES[task.name])).astype("float32")
    vote = task.vote({"exit_1": output, "exit_2": output}, kind)
    assert vote.shape == output.shape
    label = label_of(task)
    for function in (task.label_loss, task.quality):
        np.testing.assert_allclose(function(label, vote), function(label, output), 1e-4)
    one = task.imitation(output, vote, 1.0)
    np.testing.assert_allclose(one, 0, atol=1e-5)


def test_figures_do_not_depend_on_the_batches(task):
    outputs = {
        f"exit_{k}": RANDOM.normal(size=(6, *SHAPES[task.name])).astype("float32")
        for k in (1, 2)
    }
    label, results = label_of(task), []
    for batches in ([slice(0, 6)], [slice(0, 1), slice(1, 4), slice(4, 6)]):
        meter = Meter(task, all_subsets=True)
        for rows in batches:
            part = {n: v[rows] for n, v in outputs.items()}
            meter.update(part, label[rows])
            if task.searches:
                meter.add_gallery(part, label[rows])
        results.append(meter.results())
    assert results[0] == results[1]
    assert list(results[0])[0] == task.metric
    names = ["exit_1", "exit_2", "ensemble", "ensemble_probabilities"]
    assert list(meter.main()) == names  # of two exits the only subset is the ensemble


def test_average_precision_is_that_of_each_class():
    task = create_task("multi_label")
    label = (RANDOM.random((40, 4)) > 0.6).astype("float32")
    label[:, 2] = 0  # a class without an example does not count
    output = reference.fill(1, (40, 4)) + label
    meter = Meter(task)
    meter.update({"exit_1": output}, label)
    got = meter.results()
    classes = (0, 1, 3)
    each = [average_precision_score(label[:, c], output[:, c]) for c in classes]
    assert got["map"]["exit_1"] == pytest.approx(np.mean(each), abs=1e-9)
    right = ((output > 0) == (label > 0.5)).mean()
    assert got["binary_accuracy"]["exit_1"] == pytest.approx(right, abs=1e-6)
    by_hand = Meter(task)  # ranks 1, 3 of one class: (1 / 1 + 2 / 3) / 2
    by_hand.update({"exit_1": [[3.0], [2.0], [1.0]]}, [[1.0], [0.0], [1.0]])
    assert by_hand.main()["exit_1"] == pytest.approx(5 / 6)
    empty = Meter(task)
    empty.update({"exit_1": output}, 0 * label)
    with pytest.raises(UserError, match="needs examples that have a class"):
        empty.main()


def test_binary_figures_are_accuracy_and_area():
    label, meter = np.array([0, 1, 1, 0]), Meter(create_task("binary"))
    output = np.array([[-1.0], [0.5], [-0.2], [0.1]], "float32")
    meter.update({"exit_1": output}, label)
    got = meter.results()
    assert got["accuracy"]["exit_1"] == 0.5
    assert got["auc"]["exit_1"] == roc_auc_score(label, output[:, 0]) == 0.75


# ---- labels


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float32", "float64"])
def test_labels_of_any_dtype(dtype):
    rows = np.array([[1, 0], [0, 0]]).astype(dtype)
    assert create_task("multi_label").read_label(rows, (2,)).dtype == "float32"
    for label in (rows[:, 0], rows[:, :1]):
        read = create_task("binary").read_label(label, (1,))
        assert read.numpy().tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize(
    "name, label, message",
    [
        ("multi_label", [1, 0], r"must be \[B, 5\], 0 or 1 for each .* int64 \[2\]"),
        ("multi_label", [[1.0, 0.0]], r"got float64 \[1, 2\]"),
        ("multi_label", ["cat"], "got string"),
        ("binary", [[1.0, 0.0]], r"must be 0 or 1, \[B\] or \[B, 1\], got .* \[1, 2\]"),
    ],
)
def test_labels_of_another_shape_are_refused(name, label, message):
    with pytest.raises(UserError, match=message):
        create_task(name).read_label(np.array(label), SHAPES[name])


@pytest.mark.parametrize("name", ["multi_label", "binary"])
def test_labels_are_looked_at(name):
    task, shape = create_task(name), SHAPES[name]
    rows = np.zeros((3, *shape))
    check_labels(rows, task, shape)
    for wrong in (2.0, -1.0, np.nan):
        rows[1, 0] = wrong
        with pytest.raises(
            UserError, match=rf"must be 0 or 1, or between, got {wrong}"
        ):
            check_labels(rows, task, shape)


def test_labels_of_a_data_set():
    ints = np.array([1, 0, 1])
    multi_label, binary = create_task("multi_label"), create_task("binary")
    rows = multi_label.labels_of(ints, 2)
    assert rows.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert multi_label.labels_of(rows, 2) is rows
    assert binary.labels_of(ints, 2) is ints
    with pytest.raises(UserError, match="tells two classes apart, the data set has 10"):
        binary.labels_of(ints, 10)
    with pytest.raises(UserError, match="the data set has several: .*'multi_label'"):
        create_task("classification").labels_of(rows, 2)


# ---- networks


def dense(width, activation=None, rows=3):
    row = keras.Input((rows,))
    return keras.Model(row, keras.layers.Dense(width, activation)(row), name="net")


def test_exits_have_the_width_of_the_task():
    settings = {"input_shape": (8, 8, 1), "width": 0.125, "exit_head": "linear"}
    made = create_model("resnet10", 2, exits=(1, 2), task="binary", **settings)
    assert [t.shape[-1] for t in made.output.values()] == [1, 1]
    grown = add_exits(dense(1), [], 2, task="binary")
    assert grown.output["exit_1"].shape == (None, 1)
    with pytest.raises(
        UserError, match=r"exits of one logit, \[B, 1\], those of 'net'"
    ):
        Distiller(dense(2), None, "ce", task="binary")


def test_teachers_may_give_probabilities_of_the_task(capsys):
    images = RANDOM.normal(size=(6, 3)).astype("float32")
    for name, width in (("multi_label", 4), ("binary", 1)):
        teacher = dense(width, "sigmoid")
        distiller = Distiller(dense(width), teacher, "mskd", task=name)
        assert "logits by their log odds" in capsys.readouterr().out
        logits = distiller.teacher_outputs(images)["exit_1"]
        probabilities = keras.ops.sigmoid(logits)
        np.testing.assert_allclose(probabilities, teacher(images), 1e-5)
        with pytest.raises(UserError, match=r"must be logits, got probabilities \(sig"):
            Distiller(dense(width, "sigmoid"), dense(width), "mskd", task=name)
    with pytest.raises(UserError, match=r"got probabilities \(softmax\)"):
        Distiller(dense(4), dense(4, "softmax"), "mskd", task="multi_label")


def test_methods_refuse_tasks_that_they_are_not_made_for():
    for method in ("dkd", "mskd,dkd"):
        with pytest.raises(
            UserError, match="'dkd' is made for the task classification"
        ):
            Distiller(dense(4), dense(4), method, task="multi_label")


def test_accuracy_has_no_one_meaning_for_several_labels():
    distiller = Distiller(dense(4), dense(4), "mskd", task="multi_label")
    with pytest.raises(UserError, match="no metric 'accuracy': binary_accuracy is alw"):
        distiller.compile("sgd", metrics=["accuracy"])


@pytest.mark.parametrize("name, width", [("multi_label", 4), ("binary", 1)])
def test_ce_is_plain_keras(name, width):
    """Loss, weights and figures of Keras' own fit with its binary cross-entropy."""
    rows = RANDOM.normal(size=(24, 3)).astype("float32")
    label = (RANDOM.random((24, width)) > 0.5).astype("float32")
    plain, student = dense(width), dense(width)
    student.set_weights(plain.get_weights())
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    metric = keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)
    plain.compile(SGD(0.5), loss, metrics=[metric])
    distiller = Distiller(student, None, "ce", task=name)
    auc = keras.metrics.AUC(from_logits=True, name="auc")
    distiller.compile(SGD(0.5), metrics=[auc])
    settings = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    expected = plain.fit(rows, label, **settings).history
    got = distiller.fit(rows, label, **settings).history
    np.testing.assert_allclose(got["loss"], expected["loss"], 1e-5)
    measured = got[f"exit_1_{distiller.task.step_metric}"]
    np.testing.assert_allclose(measured, expected["accuracy"], 1e-5)
    assert 0 <= got["exit_1_auc"][-1] <= 1
    for one, other in zip(student.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, 1e-5, 1e-6)
    told = distiller.evaluate(rows, label, verbose=0, return_dict=True)
    assert told["loss"] == pytest.approx(plain.evaluate(rows, label, verbose=0)[0])
