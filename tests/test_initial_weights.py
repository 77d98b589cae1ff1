"""Weights to start from: those of answers to another task are left out."""

import dataclasses

import keras
import numpy as np
import pytest

from tests import own_networks
from tests.support import OWN
from tests.test_own_model import DIGITS
from tf_mskd import SGD, UserError, load_model, models
from tf_mskd.runs import build, experiment
from tf_mskd.runs.config import Config
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.runs.initial_weights import answering_layers

NORMALIZED = "tests.own_networks:normalized"
CODES = {"task": "hashing", "method": "cib"}
FROZEN = {"freeze": "backbone", "init_flagfile": "of classes"}  # is only looked at
SIZES = {"model": "resnet10", "width": 1 / 16, "exits": "1,2", "exit_head": "linear"}


def values(model, but=()):
    """All weights by path, but those of some layers."""
    kept = [layer for layer in model.layers if layer.name not in but]
    return {w.path: w.numpy() for layer in kept for w in layer.weights}


def trained(distiller, images):
    """The Distiller after two steps on two views of eight images."""
    distiller.compile(SGD(0.1), jit_compile=False, run_eagerly=True)
    targets = {"label": np.arange(8) % 3, "second_view": images[::-1].copy()}
    for _ in range(2):
        distiller.train_step((images, targets))
    return distiller.student


@pytest.mark.run
def test_heads_of_codes_learn_on_the_frozen_network_of_a_classifier(digits, capsys):
    keras.utils.set_random_seed(0)  # of hidden units that are not all dead
    images = digits[0][:8]
    classes = build.build_student(Config(**SIZES), DIGITS)
    config = Config(**SIZES, **CODES, **FROZEN, task_args="bits=6,hidden=16")
    distiller = build.build_distiller(
        config, DIGITS, init=classes, init_task="classification"
    )
    assert capsys.readouterr().out == (
        "resnet10 of --task=classification gives --task=hashing all its weights but "
        "those of exit_1, exit_2, which start anew.\n"
    )
    fresh = values(distiller.student)
    backbone = values(classes, but=["exit_1", "exit_2"])
    outputs = [distiller.student(images, training=t) for t in (True, False)]
    for name in outputs[0]:  # batch norms take their moving statistics
        np.testing.assert_array_equal(outputs[0][name], outputs[1][name], name)
    after = values(trained(distiller, images))
    for path, value in after.items():
        if path in backbone:  # moving statistics too
            np.testing.assert_array_equal(value, backbone[path], path)
        else:
            assert not np.array_equal(value, fresh[path]), path
    heads = {path.split("/")[0] for path in set(after) - set(backbone)}
    assert heads == {f"exit_{k}{h}" for k in (1, 2) for h in ("", "_hidden")}


@pytest.mark.run
def test_bits_are_no_classes_even_where_there_are_as_many():
    classes = build.build_student(Config(**SIZES), DIGITS)
    config = Config(**SIZES, **CODES, **FROZEN, task_args="bits=10")
    made = build.build_distiller(
        config, DIGITS, init=classes, init_task="classification"
    )
    kernels = [m.get_layer("exit_2").kernel for m in (classes, made.student)]
    assert kernels[1].trainable and not np.array_equal(*kernels)
    again = dataclasses.replace(config, freeze="none")
    of_codes = build.build_distiller(again, DIGITS, init=made.student)
    np.testing.assert_array_equal(
        of_codes.student.get_layer("exit_2").kernel, kernels[1]
    )


def test_codes_of_another_length_are_no_start():
    one, two = (
        Config(**SIZES, **CODES, init_flagfile="a", task_args=f"bits={bits}")
        for bits in (6, 7)
    )
    with pytest.raises(UserError, match="'exit_1' .* --vgg_taps and --task_args in "):
        build.build_distiller(one, DIGITS, init=build.build_student(two, DIGITS))


def test_the_layers_of_an_answer_are_found_behind_what_has_no_weights():
    made = models.add_exits(own_networks.small(10, (8, 8, 1)), [], 10, verbose=False)
    assert answering_layers(made) == {made.layers[-2].name}
    maps = models.create_model(
        "resnet10", 3, width=1 / 16, task="segmentation", exits=[1]
    )
    assert answering_layers(maps) == {"exit_1_conv"}


@pytest.mark.parametrize("freeze", ["none", "backbone"])
def test_a_network_of_ones_own_may_be_frozen(tmp_path, freeze):
    network = own_networks.normalized(10, (8, 8, 1))
    network.save(tmp_path / "start.keras")
    config = Config(model=str(tmp_path / "start.keras"), freeze=freeze, **CODES)
    made = build.build_student(config, DIGITS)
    frozen = {w.path.split("/")[0] for w in made.weights if not w.trainable}
    assert made.get_layer("exit_1").kernel.trainable
    assert made.get_layer("norm").trainable == (freeze == "none")
    assert len(frozen) == (1 if freeze == "none" else 2)


def test_frozen_networks_without_weights_or_heads_are_one_line():
    with pytest.raises(UserError, match="of your own that has weights, --model=keras:"):
        Config(model="keras:MobileNetV2", freeze="backbone")
    ends = Config(model="tests.own_networks:small", freeze="backbone")
    with pytest.raises(UserError, match="leaves nothing to train .* with --taps"):
        build.build_student(ends, DIGITS)
    placed = dataclasses.replace(ends, taps="one", exit_head="linear")
    assert build.build_student(placed, DIGITS).trainable_variables


@pytest.mark.run
def test_a_run_of_codes_starts_from_a_run_of_classes(tmp_path, capsys):
    classes = dataclasses.replace(OWN, model=NORMALIZED, method="ce")
    (tmp_path / "classes.flags").write_text(to_flagfile(classes))
    codes = dataclasses.replace(
        classes,
        **CODES,
        task_args="bits=6,k=20",
        freeze="backbone",
        init_flagfile=str(tmp_path / "classes.flags"),
        run_dir=str(tmp_path / "codes"),
    )
    experiment.run(codes)
    assert capsys.readouterr().out.count("those of exit_1, which start anew.\n") == 1
    keras.utils.clear_session()
    one, two = (values(load_model(tmp_path / n)) for n in ("classes", "codes"))
    heads = {path for path in one if path.startswith("exit_1/")}
    assert {path: two[path].shape[-1] for path in heads} == dict.fromkeys(heads, 6)
    for path in set(one) - heads:
        np.testing.assert_array_equal(one[path], two[path], path)
