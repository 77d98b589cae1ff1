"""Codes: ranking and average precision by hand, the task's edges, its files."""

import keras
import numpy as np
import pytest

from tf_mskd import Distiller, UserError, create_model
from tf_mskd.methods.brcd import BRCD
from tf_mskd.runs.config import Config
from tf_mskd.runs.task import build_task
from tf_mskd.tasks import create_task
from tf_mskd.tasks.hashing import Hashing, pack_codes
from tf_mskd.tasks.meter import Meter
from tf_mskd.tasks.retrieval import average_precision, nearest

QUERY = "++--"
GALLERY = ["++--", "+++-", "+-++", "--++", "++-+"]
SIZES = {"exits": (1, 2), "input_shape": (8, 8, 1), "exit_head": "linear"}


def code(*texts):
    return np.array([[1.0 if sign == "+" else -1.0 for sign in t] for t in texts])


def test_equal_distances_stay_in_order_and_ap_is_that_of_the_sheet():
    order = nearest(code(QUERY) > 0, code(*GALLERY) > 0, 5)
    assert order.tolist() == [[0, 1, 4, 2, 3]]
    relevant = np.array([1, 0, 1, 0, 1], bool)
    found = average_precision(relevant[order[:, :4]])
    np.testing.assert_allclose(found, [(1 + 2 / 3 + 3 / 4) / 3])  # .80555556
    assert average_precision(np.zeros((1, 4), bool)).tolist() == [0.0]


def test_long_codes_and_many_queries_rank_as_counted_one_by_one():
    rng = np.random.default_rng(0)
    queries, gallery = rng.random((300, 300)) < 0.5, rng.random((40, 300)) < 0.5
    distance = (queries[:, None] != gallery[None]).sum(-1)
    expected = np.argsort(distance, axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(nearest(queries, gallery, 7), expected)


def meter_of(task, **gallery):
    meter = Meter(task)
    meter.update({"exit_1": code(QUERY)}, [1])
    if gallery:
        meter.add_gallery({"exit_1": code(*GALLERY)}, [1, 0, 1, 0, 1])
    return meter


def test_a_meter_searches_the_gallery_and_that_of_the_teacher():
    meter = meter_of(Hashing(4, k=3), gallery=True)
    assert meter.results()["map_at_k"]["exit_1"] == pytest.approx((1 + 2 / 3) / 2)
    assert meter.results()["precision_at_k"]["ensemble"] == pytest.approx(2 / 3)
    meter.add_teacher_gallery({"exit_4": code(*GALLERY[::-1])})
    found = meter.results()["asymmetric_map_at_k"]["exit_1"]
    assert found == 1  # the order 4, 0, 3


def test_shortened_codes_are_measured_beside():
    task, rng = Hashing(32, k=5), np.random.default_rng(1)
    meter = Meter(task)
    queries, gallery = rng.normal(size=(4, 32)), rng.normal(size=(9, 32))
    meter.update({"exit_1": queries}, [0, 1, 0, 1])
    meter.add_gallery({"exit_1": gallery}, np.arange(9) % 2)
    short = Meter(Hashing(8, k=5))
    short.update({"exit_1": queries[:, :8]}, [0, 1, 0, 1])
    short.add_gallery({"exit_1": gallery[:, :8]}, np.arange(9) % 2)
    found = meter.results()
    assert [n for n in found if n.endswith("bits")] == ["map_8_bits", "map_16_bits"]
    assert found["map_8_bits"]["exit_1"] == short.main()["exit_1"]


def test_a_search_without_a_gallery_is_one_line():
    with pytest.raises(UserError, match="needs a gallery"):
        meter_of(Hashing(4)).results()


def test_packed_codes_are_those_of_numpy():
    outputs = np.random.default_rng(0).normal(size=(3, 12))
    packed = pack_codes(outputs)
    assert packed.shape == (3, 2) and packed.dtype == np.uint8
    np.testing.assert_array_equal(np.unpackbits(packed, axis=1)[:, :12], outputs >= 0)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"bits": 0}, "bits of the task 'hashing' must be a whole number >= 1, got 0"),
        ({"hidden": -1}, "hidden of the task"),
        ({"k": 2.5}, "k of the task"),
        ({"bit": 3}, "bits"),
    ],
)
def test_a_wrong_argument_of_the_task_is_one_line(arguments, line):
    with pytest.raises(UserError, match=line):
        create_task("hashing", **arguments)


def test_a_task_without_arguments_refuses_some():
    with pytest.raises(UserError, match="'classification' takes no arguments, got 'k'"):
        create_task("classification", k=3)
    with pytest.raises(UserError, match="'binary' takes no arguments"):
        build_task(Config(task="binary", task_args="bits=3"))


def test_labels_are_class_numbers_or_one_line():
    task = Hashing(4)
    assert task.read_label([[2.0], [7.0]], (4,)).numpy().tolist() == [2, 7]
    with pytest.raises(UserError, match="class numbers \\[B\\] or \\[B, 1\\]"):
        task.read_label(np.ones((2, 3)), (4,))
    with pytest.raises(UserError, match="must be class numbers, got 0.5"):
        task.check_label(np.array([0.5]), (4,))
    with pytest.raises(UserError, match="several labels an image"):
        task.labels_of(np.ones((2, 3)), 3)
    with pytest.raises(UserError, match="bits=8"):
        task.check_outputs("student", (8,))


def test_the_label_loss_is_0_and_equal_codes_imitate_for_nothing():
    task, h = Hashing(4), np.float32([[1, -2, 3, 4]])
    assert task.label_loss(np.array([3]), h).numpy().tolist() == [0.0]
    assert float(task.imitation(h, h, 4.0)[0]) == pytest.approx(0, abs=1e-6)
    assert float(task.quality([0], np.zeros((1, 4)))[0]) == 0


@pytest.fixture(scope="module")
def networks():
    task = Hashing(bits=6, hidden=5)
    made = [create_model("resnet10", 3, width=0.125, task=task, **SIZES) for _ in "ab"]
    return task, *made


def test_networks_have_a_hidden_layer_and_the_bits(networks):
    _, student, _ = networks
    assert student.output["exit_2"].shape == (None, 6)
    assert student.get_layer("exit_2_hidden").units == 5


@pytest.mark.run
def test_a_file_keeps_the_arguments_of_the_task(networks, tmp_path):
    task, student, teacher = networks
    distiller = Distiller(student, teacher, "mskd", task=task)
    distiller.compile("sgd")
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), "uint8")
    logs = distiller.fit(images, np.arange(8) % 3, batch_size=4, verbose=0).history
    assert logs["ce/exit_1"] == [0.0] and logs["kd/exit_1"][0] > 0
    distiller.save(tmp_path / "d.keras")
    again = keras.saving.load_model(tmp_path / "d.keras")
    assert again.task.get_config() == {"bits": 6, "hidden": 5, "k": 1000}


def test_a_method_to_prepare_is_refused_by_fit(networks):
    task, student, teacher = networks
    distiller = Distiller(
        student, teacher, BRCD(num_examples=4, num_clusters=2), task=task
    )
    distiller.compile("sgd")
    with pytest.raises(UserError, match="is to be prepared before fit"):
        distiller.fit(np.zeros((4, 8, 8, 1), "uint8"), np.zeros(4))
