"""SSKD and the stage before it: terms, kept rows, views and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.reference import fill
from tf_mskd import Distiller, UserError
from tf_mskd.methods.sskd import SSKD
from tf_mskd.methods.sskd_teacher import SSKDTeacher

LABEL = np.repeat([1, 2], 4).astype("int32")
STUDENT = {"exit_4": 2 * fill(0.4, [8, 3]), "projection_4": fill(0.2, [8, 4])}
TEACHER = {"exit_4": 2 * fill(1.1, [8, 3]), "projection_4": fill(2.3, [8, 4])}


def split(x):
    """Unrotated and rotated rows."""
    upright = np.arange(len(x)) % 4 == 0
    return x[upright], x[~upright]


def cosine(projected):
    """float64 [3 B, B], rotated views against unrotated ones."""
    unit = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    upright, turned = split(unit)
    return turned @ upright.T


def kept(scores, truth, fraction):
    ranks = np.array([np.sum(s > s[t]) for s, t in zip(scores, truth, strict=True)])
    wrong = np.lexsort((np.arange(len(ranks)), ranks))[np.sum(ranks == 0) :]
    mask = ranks == 0
    mask[wrong[: int(np.floor(fraction * len(wrong)))]] = True
    return ranks, mask


def expected_terms(student, teacher, label, t=4.0, s=0.5, fractions=(1.0, 0.75)):
    """The four terms of a network with the exits exit_k, float64."""
    terms, (upright, turned) = {}, split(label)
    for name in [n for n in student if n.startswith("exit")]:
        z, teacher_x = student[name], teacher["exit_4"]
        terms[f"ce/{name}"] = reference.cross_entropy(upright, split(z)[0]).mean()
        kl = reference.softened_kl(teacher_x, z, t)
        terms[f"kd/{name}"] = split(kl)[0].mean()
        _, mask = kept(split(teacher_x)[1], turned, fractions[0])
        terms[f"sskd_transformed/{name}"] = split(kl)[1][mask].mean()
    student_x, teacher_x = (cosine(x["projection_4"]) for x in (student, teacher))
    _, mask = kept(teacher_x, np.repeat(np.arange(len(upright)), 3), fractions[1])
    kl = reference.softened_kl(teacher_x, student_x, s)
    terms["sskd_contrast/projection_4"] = kl[mask].mean()
    return terms


def means(terms):
    return {name: float(np.mean(value)) for name, value in terms.items()}


def compare(got, expected, rtol=2e-5):
    got = means(got)
    assert set(got) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol, 1e-7, err_msg=name)


def random_outputs(seed, width, exits=("exit_2", "exit_4")):
    rng = np.random.default_rng(seed)
    outputs = {name: 3 * rng.normal(size=(24, 5)) for name in exits}
    return {**outputs, "projection_4": rng.normal(size=(24, width))}


def test_terms_and_total_of_the_fixture():
    method = SSKD()
    terms = method(STUDENT, TEACHER, {"label": LABEL})
    contrast = float(terms.pop("sskd_contrast/projection_4"))
    np.testing.assert_allclose(contrast, 0.00069863, 1e-5)
    expected = {
        "ce/exit_4": 1.89981142,
        "kd/exit_4": 0.14682718,
        "sskd_transformed/exit_4": 0.12735104,
    }
    compare(terms, expected)
    terms["sskd_contrast/projection_4"] = contrast
    weights = method.default_weights
    total = sum(weights[n.split("/")[0]] * v for n, v in means(terms).items())
    np.testing.assert_allclose(total, 0.67295968, 2e-5)


def test_kept_rows_of_the_fixture():
    ranks, _ = kept(split(TEACHER["exit_4"])[1], split(LABEL)[1], 1.0)
    assert ranks.tolist() == [1, 1, 0, 0, 2, 2]
    scores = cosine(TEACHER["projection_4"])
    ranks, mask = kept(scores, [0, 0, 0, 1, 1, 1], 0.75)
    assert ranks.tolist() == [1, 1, 0, 1, 0, 1]
    assert np.flatnonzero(mask).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("fractions", [(1.0, 0.75), (0.5, 0.25), (0.0, 0.0)])
def test_terms_of_several_exits_equal_the_reference(fractions):
    student, teacher = random_outputs(1, 6), random_outputs(2, 9)
    label = np.repeat(np.arange(6) % 5, 4).astype("int32")
    method = SSKD(3.0, 0.7, *fractions)
    got = method(student, teacher, {"label": label})
    compare(got, expected_terms(student, teacher, label, 3.0, 0.7, fractions), 1e-4)
    assert method.pairs == {
        "exit_2": ("exit_4",),
        "exit_4": ("exit_4",),
        "projection_4": ("projection_4",),
    }


def test_a_fraction_of_nothing_keeps_only_rows_where_the_teacher_is_correct():
    label = np.zeros(8, "int32")
    wrong = {**TEACHER, "exit_4": np.tile([0.0, 1.0, 2.0], (8, 1))}
    got = SSKD(transformed_fraction=0.0)(STUDENT, wrong, {"label": label})
    assert float(got["sskd_transformed/exit_4"]) == 0.0


def test_the_length_of_projected_vectors_does_not_matter():
    length = np.linspace(0.1, 9.0, 8)[:, None]
    longer = {**STUDENT, "projection_4": length * STUDENT["projection_4"]}
    expected = means(SSKD()(STUDENT, TEACHER, {"label": LABEL}))
    compare(SSKD()(longer, TEACHER, {"label": LABEL}), expected)


def test_an_early_phase_without_projection_trains_its_exits():
    student, teacher = random_outputs(1, 6), random_outputs(2, 9)
    targets = {"label": np.zeros(24, "int32")}
    method = SSKD()
    whole = method(student, teacher, targets)
    early = method({"exit_2": student["exit_2"]}, teacher, targets)
    assert set(early) == {n for n in whole if n.endswith("exit_2")}


def test_views_are_rotated_first_and_cropped_each_for_itself(digits):
    image = digits[0][:40]
    method = SSKD(crop_padding=2)
    got, targets = method.augment(tf.constant(image), {"label": digits[1][:40]}, 0, 0)
    assert got.shape == (160, 8, 8, 1) and got.dtype == "uint8"
    np.testing.assert_array_equal(targets["label"], digits[1][:40].repeat(4))
    places = []
    for row, view in enumerate(got.numpy()):
        turned = np.rot90(image[row // 4], row % 4)
        padded = np.pad(turned, ((2, 2), (2, 2), (0, 0)))
        found = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(padded[y : y + 8, x : x + 8], view)
        ]
        assert found, f"row {row} is no crop of its image"
        places.append(found[0])
    assert len(set(places[::4])) > 5, "the unrotated rows are cropped too"
    assert sum(a != b for a, b in zip(places[::4], places[1::4], strict=True)) > 30


def test_the_state_of_the_crops_is_a_variable_of_the_method():
    keras.utils.set_random_seed(7)
    first = SSKD()
    keras.utils.set_random_seed(7)
    again = SSKDTeacher()
    images = tf.random.uniform([4, 8, 8, 3])
    for method in (first, again):
        (state,) = method.variables
        assert state.path.endswith("seed_generator_state")
    one, _ = first.augment(images, {}, None, None)
    two, _ = again.augment(images, {}, None, None)
    np.testing.assert_array_equal(one, two)


def test_one_step_takes_four_rows_an_image(tiny, digits):
    teacher = tiny((4,), 1 / 8, aux_heads=["projection"])
    student = tiny((2, 4), aux_heads=["projection"])
    distiller = Distiller(student, teacher, SSKD(crop_padding=1))
    distiller.compile("sgd", jit_compile=False)
    logs = distiller.train_step((digits[0][:16], digits[1][:16]))
    expected = {
        f"{t}/exit_{k}" for t in ("ce", "kd", "sskd_transformed") for k in (2, 4)
    }
    expected |= {"sskd_contrast/projection_4"}
    assert {name for name in logs if "/" in name} == expected
    assert all(np.isfinite(logs[name]) for name in expected)


def test_teacher_stage_of_the_fixture():
    terms = SSKDTeacher()({"projection_4": fill(2.3, [8, 4])}, {}, {"label": LABEL})
    np.testing.assert_allclose(terms["sskd_teacher/projection_4"], 0.88868005, 2e-5)


def test_teacher_stage_equals_the_reference():
    projected = np.random.default_rng(0).normal(size=(24, 7))
    got = SSKDTeacher()({"projection_4": projected}, {}, {})
    parents = np.repeat(np.arange(6), 3)
    expected = reference.cross_entropy(parents, cosine(projected)).mean()
    np.testing.assert_allclose(got["sskd_teacher/projection_4"], expected, 1e-5)


def test_teacher_stage_trains_the_head_alone(tiny, digits):
    network = tiny((4,), aux_heads=["projection"])
    for layer in network.layers:
        layer.trainable = layer.name.startswith("projection")
    before = {v.path: v.numpy() for v in network.variables}
    distiller = Distiller(network, method=SSKDTeacher(crop_padding=1))
    distiller.compile("sgd", jit_compile=False)
    distiller.train_step((digits[0][:16], digits[1][:16]))
    for variable in network.variables:
        same = np.array_equal(before[variable.path], variable.numpy())
        assert same != ("projection" in variable.path), variable.path


def test_the_docstrings_weights():
    assert SSKD().default_weights == {
        "ce": 0.1,
        "kd": 0.9,
        "sskd_transformed": 2.7,
        "sskd_contrast": 10.0,
    }
    assert SSKD.rows_per_image == SSKDTeacher.rows_per_image == 4


def test_networks_without_projection_are_refused():
    with pytest.raises(UserError, match="'sskd' reads projection_k of the student, wh"):
        SSKD().output_pairs(["exit_4"], list(TEACHER))
    message = "projection_k of the teacher, which makes exit_4: train that head first, "
    with pytest.raises(UserError, match=message + "with method sskd_teacher"):
        SSKD().output_pairs(list(STUDENT), ["exit_4"])
    message = "'sskd_teacher' reads projection_k of the network, which makes exit_4: b"
    with pytest.raises(UserError, match=message):
        SSKDTeacher().output_pairs(["exit_4"], [])


def test_teacher_stage_refuses_a_phase_without_its_head():
    method = SSKDTeacher()
    method({"projection_4": STUDENT["projection_4"]}, {}, {})
    with pytest.raises(UserError, match="the whole network in every phase: take ph"):
        method({"exit_1": STUDENT["exit_4"]}, {}, {})


@pytest.mark.parametrize("method", [SSKD(), SSKDTeacher()])
def test_a_batch_of_one_image_is_refused(method):
    student = {name: value[:4] for name, value in STUDENT.items()}
    teacher = {name: value[:4] for name, value in TEACHER.items()}
    with pytest.raises(UserError, match="got a batch of one: raise --batch_size"):
        method(student, teacher, {"label": LABEL[:4]})


@pytest.mark.parametrize("method", [SSKD(), SSKDTeacher()])
def test_images_that_are_not_square_are_refused(method):
    with pytest.raises(UserError, match="needs square images, got 8x6"):
        method.augment(tf.zeros([2, 8, 6, 3]), {}, None, None)
