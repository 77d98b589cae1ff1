"""Several methods at once: the union of their terms, by names with commas."""

import json

import keras
import numpy as np
import pytest

from tests import reference
from tf_mskd import SGD, Distiller, UserError, models
from tf_mskd.methods.ce import CE
from tf_mskd.methods.common.composite import Composite
from tf_mskd.methods.common.create import create_method, method_defaults
from tf_mskd.methods.common.method import Method
from tf_mskd.methods.kd import KD
from tf_mskd.runs import build
from tf_mskd.runs.config import Config

LABEL = {"label": reference.LABELS}


class Views(Method):
    """Reads every row of a batch in which each image stands `rows_per_image` times."""

    registry_name = "views"
    default_weights = {"views": 2.0}
    rows_per_image = 2
    needs_teacher = False

    def augment(self, images, targets, student, teacher):
        rows = keras.ops.repeat(images, 2, axis=0)
        return rows, {n: keras.ops.repeat(t, 2, axis=0) for n, t in targets.items()}

    def call(self, student, teacher, targets):
        return {f"views/{n}": keras.ops.max(z, -1) for n, z in student.items()}


class Factors(CE):
    """Labels with a schedule."""

    registry_name = "factors"

    def __init__(self, factors, **kwargs):
        super().__init__(**kwargs)
        self.factors = factors

    def schedule(self, epoch, epochs, history):
        return {term: f * (epoch + len(history)) for term, f in self.factors.items()}


def maps(seed, rows=4):
    """Exits and maps of two stages."""
    rng = np.random.default_rng(seed)
    outputs = {f"exit_{k}": rng.normal(size=(rows, 5)) * 3 for k in (1, 2)}
    outputs |= {f"feature_{k}": rng.normal(size=(rows, 4, 4, 3)) for k in (1, 2)}
    return {name: value.astype("f4") for name, value in outputs.items()}


def equal_terms(got, expected):
    assert set(got) == set(expected), f"{set(got)}, expected {set(expected)}"
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, 1e-6, err_msg=name)


# ---- terms and weights


@pytest.mark.parametrize("name", ["mskd,at", "at,mskd", "oto, at", "ce,at,oto"])
def test_the_terms_are_the_union_of_the_methods_own(name):
    student, teacher = maps(0), maps(1)
    parts = [create_method(part.strip()) for part in name.split(",")]
    expected = {}
    for part in parts:
        expected |= part(student, teacher, LABEL)
    equal_terms(create_method(name)(student, teacher, LABEL), expected)


def test_labels_are_learnt_once():
    terms = create_method("mskd,at")(maps(0), maps(1), LABEL)
    assert sorted(n for n in terms if n.startswith("ce/")) == ["ce/exit_1", "ce/exit_2"]
    expected = reference.cross_entropy(reference.LABELS, maps(0)["exit_1"])
    np.testing.assert_allclose(terms["ce/exit_1"], expected, 2e-5)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("kd,at", {"ce": 0.1, "kd": 0.9, "at": 1000.0}),
        ("at,kd", {"ce": 1.0, "at": 1000.0, "kd": 0.9}),
        ("ce,at,mskd", {"ce": 1.0, "at": 1000.0, "kd": 0.9}),
    ],
)
def test_the_default_weight_of_a_term_is_that_of_the_first_method_with_it(
    name, expected
):
    weights = create_method(name).default_weights
    assert weights == expected
    assert list(weights) == list(expected)


def test_a_methods_own_weights_follow_its_arguments():
    method = create_method("kd,at", preset="hsakd")
    assert method.default_weights == {"ce": 1.0, "kd": 1.0, "at": 1000.0}


def test_the_loss_is_the_sum_of_the_methods_losses(tiny, digits):
    images, labels = digits[0][:12], digits[1][:12]
    student, teacher = tiny((2,)), tiny((1, 2, 3), 1 / 8)
    names = ("exit_2", "feature_1", "feature_2")
    student_x = models.sub_model(student, names)(images, training=True)
    teacher_x = models.sub_model(teacher, [*names, "exit_3", "feature_3"])(images)

    def loss(name, **weights):
        distiller = Distiller(student, teacher, name, term_weights=weights)
        given = (images, labels, student_x, None, True, teacher_x)
        return float(distiller.compute_loss(*given))

    kd, at = loss("kd"), loss("at", ce=0.0)
    assert kd > 0.1 and at > 0.1
    np.testing.assert_allclose(loss("kd,at"), kd + at, 1e-5)
    labels_alone = loss("ce")
    np.testing.assert_allclose(loss("at,kd"), kd + at + 0.9 * labels_alone, 1e-5)


def test_what_is_read_is_the_union():
    names = list(maps(0))
    pairs = create_method("oto,at").output_pairs(names, names)
    assert pairs == {name: (name,) for name in names}


def test_targets_of_one_output_are_joined_without_repeats():
    class More(KD):
        def output_pairs(self, student, teacher):
            return {"exit_1": ("exit_1", "exit_2")}

    pairs = Composite([KD(), More()]).output_pairs(["exit_1"], ["exit_1", "exit_2"])
    assert pairs == {"exit_1": ("exit_2", "exit_1")}


def test_needs_of_the_methods_are_joined():
    class Peer(CE):
        registry_name = "peer"
        target_keys = ("label", "index", "negatives")
        aux_heads = ("projection",)
        trains_teacher, teacher_rate, num_negatives = True, 0.1, 7

    method = Composite([CE(), Peer()])
    assert method.target_keys == ("label", "index", "negatives")
    assert method.aux_heads == ("projection",)
    assert (method.trains_teacher, method.teacher_rate) == (True, 0.1)
    assert method.num_negatives == 7
    assert not method.needs_teacher and Composite([CE(), KD()]).needs_teacher
    assert not Composite([CE(), KD()]).trains_teacher


def test_variables_of_all_methods_are_its_own():
    class Learning(CE):
        registry_name = "learning"

        def build(self, student_shape, teacher_shape=None, targets_shape=None):
            super().build(student_shape, teacher_shape, targets_shape)
            self.scale = self.add_weight(name="scale")

    method = Composite([KD(), Learning()])
    outputs = {"exit_1": reference.STUDENT}
    method(outputs, outputs, LABEL)
    assert [v.name for v in method.trainable_variables] == ["scale"]


# ---- what cannot be


def test_two_methods_with_one_term_are_refused(tiny):
    message = "'kd,mskd' cannot be: kd and mskd both make the term 'kd/exit_2'. Take"
    with pytest.raises(UserError, match=message):
        Distiller(tiny((2,)), tiny((2,)), "kd,mskd")


def test_a_method_named_twice_is_refused():
    with pytest.raises(UserError, match="'at,kd,at' names a method twice"):
        create_method("at,kd,at")


def test_two_methods_that_change_the_batch_are_refused():
    class Other(Views):
        registry_name = "other"

    message = "'views,ce,other' cannot be: views and other both change the batch"
    with pytest.raises(UserError, match=message):
        Composite([Views(), CE(), Other()])


@pytest.mark.parametrize("name", ["kd,att", "att,kd", "kd,at,att"])
def test_an_unknown_name_among_others_is_answered_with_the_nearest(name):
    with pytest.raises(UserError, match="Unknown method 'att'; .*'at'"):
        create_method(name)


def test_an_empty_name_among_others_is_refused():
    with pytest.raises(UserError, match="Unknown method ''"):
        create_method("kd,")


def test_what_one_method_refuses_is_refused_in_its_name(tiny):
    with pytest.raises(UserError, match="Method 'kd' trains one exit, .* has 2"):
        Distiller(tiny((1, 2)), tiny((2,)), "kd,at")


# ---- views


def test_beside_several_views_the_others_see_the_first():
    student, teacher = maps(0, rows=8), maps(1, rows=8)
    label = {"label": reference.LABELS.repeat(2)}
    label["label"][1::2] = 4  # what the second view must not teach
    one = {name: value for name, value in student.items() if name != "exit_1"}
    method = Composite([KD(), Views()])
    assert method.rows_per_image == 2
    terms = method(one, teacher, label)
    first = [{n: z[::2] for n, z in part.items()} for part in (one, teacher, label)]
    equal_terms(terms, KD()(*first) | Views()(one, teacher, label))
    assert terms["kd/exit_2"].shape == (4,) and terms["views/exit_2"].shape == (8,)


@pytest.mark.parametrize("order", [1, -1])
def test_the_one_method_that_changes_the_batch_does(order):
    method = Composite([KD(), Views()][::order])
    batch = (np.arange(2.0), {"label": np.arange(2)})
    images, targets = method.augment(*batch, None, None)
    np.testing.assert_array_equal(images, [0, 0, 1, 1])
    np.testing.assert_array_equal(targets["label"], [0, 0, 1, 1])


def test_without_such_a_method_the_batch_stays():
    images, targets = object(), object()
    method = create_method("kd,at")
    assert method.augment(images, targets, None, None) == (images, targets)
    assert method.rows_per_image == 1


def test_beside_a_teacher_with_a_view_of_its_own_none_else_reads_it():
    with pytest.raises(UserError, match="in dats student and teacher read different"):
        create_method("kd,dats")
    assert create_method("ce,dats").teacher_view


def test_a_distiller_trains_with_views_and_without_at_once(tiny, digits):
    student, teacher = tiny((2,)), tiny((2,), 1 / 8)
    distiller = Distiller(student, teacher, Composite([KD(), Views()]))
    distiller.compile(SGD(0.1), run_eagerly=True, jit_compile=False)
    images, labels = digits[0][:8], digits[1][:8]
    weight = np.linspace(0.1, 1, 8).astype("f4")  # of images, not of rows
    logits = models.sub_model(student, ["exit_2"])(images.repeat(2, 0), training=True)
    expected = np.max(logits["exit_2"], -1)[::2]  # both views are one image here
    logs = distiller.fit(images, labels, sample_weight=weight, verbose=0).history
    expected = np.sum(weight * expected) / weight.sum()
    np.testing.assert_allclose(logs["views/exit_2"][0], expected, 1e-4)


# ---- arguments


def test_an_argument_goes_to_the_method_that_has_it():
    method = create_method("at,oto", temperature=2.0, exit_map="1:2")
    _, oto = method.methods
    assert (oto.temperature, oto.exit_map) == (2.0, {1: 2})


def test_an_argument_with_the_methods_name_goes_there():
    method = create_method("mskd,oto", **{"oto.temperature": 2.0})
    mskd, oto = method.methods
    assert (mskd.temperature, oto.temperature) == (4.0, 2.0)


def test_an_argument_of_several_methods_must_name_one():
    message = r"Unknown argument of method 'mskd,oto' 'temperature'; .*\w+\.temperature"
    with pytest.raises(UserError, match=message):
        create_method("mskd,oto", temperature=2.0)


@pytest.mark.parametrize("argument", ["temprature", "at.temperature", "kd.exit_map"])
def test_an_argument_that_no_method_has_is_refused(argument):
    with pytest.raises(UserError, match=f"of method 'kd,at' '{argument}'; "):
        create_method("kd,at", **{argument: 3.0})


def test_defaults_are_listed_with_the_methods_name_and_alone_where_that_is_clear():
    defaults = method_defaults("mskd, oto")
    assert {n for n in defaults if "." not in n} == {"exit_map", "guide"}
    assert {n for n in defaults if n.startswith("oto.")} == {
        "oto.preset",
        "oto.temperature",
        "oto.exit_map",
    }
    assert defaults["mskd.preset"] == "repdistiller"


def test_flags_reach_the_methods():
    config = Config(
        method="oto,at", method_args="oto.temperature=3,preset=hsakd", exit_map="1:2"
    )
    oto, _ = build.build_method(config).methods
    assert (oto.temperature, oto.preset, oto.exit_map) == (3.0, "hsakd", {1: 2})


# ---- schedule and configuration


def test_schedules_are_joined_and_the_first_method_wins():
    method = Composite([Factors({"ce": 1.0}), Factors({"ce": 5.0, "at": 7.0})])
    assert method.schedule(2, 9, [{}]) == {"ce": 3.0, "at": 21.0}


@pytest.mark.parametrize("saved", [False, True])
def test_config_round_trip(saved):
    method = create_method("kd,at", temperature=2.0, preset="byot")
    config = method.get_config()
    if saved:  # as in a file
        config = json.loads(json.dumps(config))
    again = Composite.from_config(config)
    assert again.get_config() == method.get_config()
    assert again.registry_name == "kd,at"
    assert again.default_weights == method.default_weights
    student, teacher = maps(0), maps(1)
    del student["exit_1"]
    terms = method(student, teacher, LABEL)
    equal_terms(again(student, teacher, LABEL), terms)


def test_reading_a_config_leaves_it_as_it_was():
    config = create_method("kd,at").get_config()
    Composite.from_config(config)
    assert "methods" in config


# ---- in a Distiller


def test_a_distiller_trains_with_two_methods_on_digits(tiny, digits):
    images, labels = digits[0][:64], digits[1][:64]
    student, teacher = tiny((2,)), tiny((2,), 1 / 8)
    fixed = [v.numpy() for v in teacher.variables]
    distiller = Distiller(student, teacher, "kd,at")
    distiller.compile(SGD(0.02), jit_compile=False)
    logs = distiller.fit(images, labels, epochs=6, batch_size=32, verbose=0).history
    assert {n for n in logs if "/" in n} == {
        "ce/exit_2",
        "kd/exit_2",
        "at/feature_1",
        "at/feature_2",
    }
    for name in ("loss", "at/feature_2"):
        assert logs[name][-1] < 0.9 * logs[name][0], f"{name}: {logs[name]}"
    weighed = sum(
        {"ce": 0.1, "kd": 0.9, "at": 1000.0}[name.split("/")[0]] * logs[name][-1]
        for name in logs
        if "/" in name
    )
    np.testing.assert_allclose(logs["loss"][-1], weighed, 1e-4)
    for before, variable in zip(fixed, teacher.variables, strict=True):
        np.testing.assert_array_equal(before, variable.numpy())


def test_term_weights_of_all_methods_can_be_set(tiny):
    weights = {"ce": 2.0, "kd": 0.5, "at": 10.0}
    distiller = Distiller(tiny((2,)), tiny((2,)), "kd,at", term_weights=weights)
    got = {name: float(v) for name, v in distiller.term_weights.items()}
    assert got == weights
    with pytest.raises(UserError, match="Unknown term in term_weights 'att'; .*'at'"):
        Distiller(tiny((2,)), tiny((2,)), "kd,at", term_weights={"att": 1.0})


def test_a_teacher_is_asked_for_if_one_method_needs_it(tiny):
    with pytest.raises(UserError, match="Method 'ce,at' needs a teacher, got None"):
        Distiller(tiny((2,)), None, "ce,at")
