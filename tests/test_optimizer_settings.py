"""The optimizers of --optimizer, and what goes with them, against known answers."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from tests import own_networks, reference
from tests.support import OWN
from tf_mskd import Distiller
from tf_mskd.models.saving import load_model
from tf_mskd.runs import build, experiment
from tf_mskd.runs.config import Config, differing
from tf_mskd.runs.optimizer_settings import DECAYS, RATES
from tf_mskd.training.averaging import averaged_weights, use_averages
from tf_mskd.training.label_smoothing import SmoothedCrossEntropy
from tf_mskd.training.optimizers import create_optimizer
from tf_mskd.utils.choices import OPTIMIZERS
from tf_mskd.utils.errors import UserError

LOGITS = reference.fill(0, [4, 3])


def compiled(**settings):
    """A compiled Distiller of a small network."""
    distiller = Distiller(own_networks.small(10, (8, 8, 1)), method="ce")
    config = Config(lr_schedule="constant", epochs=10, **settings)
    build.compile_distiller(distiller, config, steps_per_epoch=10)
    return distiller


def zeros(variables):
    return [keras.ops.zeros(v.shape) for v in variables]


@pytest.mark.parametrize("kind", DECAYS)
@pytest.mark.parametrize("decay", [-1.0, 0.2])
def test_matrices_decay_beside_the_gradient_and_vectors_do_not(kind, decay):
    distiller = compiled(optimizer=kind, weight_decay=decay)
    variables = distiller.trainable_variables
    for variable in variables:
        variable.assign(keras.ops.ones(variable.shape))
    distiller.optimizer.apply(zeros(variables), variables)
    left = 1 - RATES[kind] * (DECAYS[kind] if decay < 0 else decay)
    assert {len(v.shape) for v in variables} == {1, 2, 4}
    for variable in variables:
        expected = left if len(variable.shape) > 1 else 1.0
        np.testing.assert_allclose(variable, expected, rtol=1e-6)


def test_without_a_decay_nothing_decays():
    for settings in ({"optimizer": "adam"}, {"optimizer": "lion", "weight_decay": 0}):
        distiller = compiled(**settings)
        variables = distiller.trainable_variables
        before = [v.numpy() for v in variables]
        distiller.optimizer.apply(zeros(variables), variables)
        for variable, value in zip(variables, before, strict=True):
            np.testing.assert_array_equal(variable, value)


def run(optimizer, gradients, start=0.0):
    """The values of a variable after each step."""
    variable = keras.Variable(np.float32([start]))
    optimizer.build([variable])
    values = []
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor([gradient])], [variable])
        values.append(float(variable.numpy()[0]))
    return variable, values


def test_gradients_are_averaged_and_the_rate_is_that_of_the_step():
    """Of 6 steps each third updates; the rate falls after the fourth."""
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.1, 0.01])
    optimizer = create_optimizer("sgd", rate, momentum=0.0, accumulate_steps=3)
    _, values = run(optimizer, [1.0, 2.0, 6.0, 1.0, 1.0, 4.0])
    np.testing.assert_allclose(
        values, [0, 0, -0.3, -0.3, -0.3, -0.3 - 0.01 * 2], rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_each_optimizer_descends_at_its_own_rate(kind):
    config = Config(optimizer=kind)
    assert config.learning_rate == RATES[kind] and Config(lr=0.3).learning_rate == 0.3
    optimizer = create_optimizer(kind, config.learning_rate)
    _, values = run(optimizer, [0.5] * 3)
    assert 0 > values[0] > values[1] > values[2]


def test_the_gradient_of_all_variables_is_clipped_as_one():
    variables = [keras.Variable([0.0]), keras.Variable([0.0])]
    optimizer = create_optimizer("sgd", 1.0, momentum=0.0, clip_norm=1.0)
    optimizer.apply([keras.ops.array([3.0]), keras.ops.array([4.0])], variables)
    np.testing.assert_allclose([v.numpy()[0] for v in variables], [-0.6, -0.8], 1e-6)


@dataclasses.dataclass
class Trained:
    """What the averages read of a Distiller."""

    optimizer: keras.optimizers.Optimizer
    trainable_variables: list


def test_averages_are_lent_and_given_back():
    optimizer = create_optimizer("sgd", 1.0, momentum=0.0, ema=0.75)
    variable, values = run(optimizer, [])
    trained = Trained(optimizer, [variable])
    with averaged_weights(trained):  # there are none yet
        assert float(variable.numpy()[0]) == 0.0
    for _ in range(2):
        optimizer.apply([keras.ops.array([-4.0])], [variable])
    with averaged_weights(trained):
        assert float(variable.numpy()[0]) == 0.75 * 4 + 0.25 * 8
    assert float(variable.numpy()[0]) == 8.0
    use_averages(trained)
    assert float(variable.numpy()[0]) == 5.0


def test_nothing_is_averaged_unless_asked_for():
    optimizer = create_optimizer("sgd", 1.0, momentum=0.0)
    variable, _ = run(optimizer, [-4.0, -4.0])
    with averaged_weights(Trained(optimizer, [variable])):
        assert float(variable.numpy()[0]) == 8.0


@pytest.mark.parametrize("labels", [np.array([0, 2, 1, 1]), reference.fill(1, [4, 3])])
def test_smoothed_labels_are_those_of_keras(labels):
    if labels.ndim == 2:
        labels = abs(labels) / abs(labels).sum(-1, keepdims=True)
    loss = SmoothedCrossEntropy(0.2)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    rows = np.eye(3)[labels] if labels.ndim == 1 else labels
    keras_loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.2, reduction=None
    )
    found, expected = again.call(labels, LOGITS), keras_loss(rows, LOGITS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(loss(labels, LOGITS), np.mean(expected), rtol=1e-5)


def test_labels_are_smoothed_at_every_exit():
    distiller = compiled(label_smoothing=0.5)
    logits = {"exit_1": keras.ops.array(LOGITS, "float32")}
    labels = np.array([0, 2, 1, 1])
    terms = distiller.method.label_terms(logits, {"label": labels})
    expected = SmoothedCrossEntropy(0.5).call(labels, LOGITS)
    np.testing.assert_allclose(terms["ce/exit_1"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"optimizer": "adamww"}, "--optimizer must be .*; did you mean 'adamw'"),
        ({"optimizer": "adamw", "l2": 0.1}, "l2=0.1 is for .*sgd, .* --weight_decay"),
        ({"optimizer": "adam", "l2": 0.1}, "l2=0.1 is for --optimizer=sgd, .*default."),
        ({"optimizer": "lion", "momentum": 0.5}, "--momentum=0.5 is for --opt"),
        ({"optimizer": "muon", "nesterov": True}, "--nesterov=True is for --opt"),
        ({"weight_decay": 0.1}, "--weight_decay=0.1 is for .*, got sgd: set --l2"),
        ({"optimizer": "adam", "weight_decay": 0.1}, "got adam: take --opt.*=adamw"),
        ({"optimizer": "adamw", "weight_decay": -0.1}, "must be 0 or more, or -1"),
        ({"optimizer": "adamw", "weight_decay": -2}, r"must be in \[-1, inf\], got -2"),
        ({"ema": 1}, "--ema must be below 1, got 1.0"),
        ({"label_smoothing": 1}, "--label_smoothing must be below 1"),
        ({"ema": 1.5}, r"--ema must be in \[0, 1\]"),
        ({"accumulate_steps": 0}, r"--accumulate_steps must be in \[1, inf\]"),
        ({"clip_norm": -1}, r"--clip_norm must be in \[0, inf\]"),
    ],
)
def test_settings_that_an_optimizer_does_not_read_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Config(**settings)


def test_what_one_run_does_not_read_is_refused(monkeypatch):
    with pytest.raises(UserError, match="Unknown optimizer 'sgdd'; .* 'sgd'"):
        create_optimizer("sgdd", 0.1)
    with pytest.raises(UserError, match="Label smoothing must be in .* got 1.5"):
        SmoothedCrossEntropy(1.5)
    with pytest.raises(UserError, match="steps=101 must be at most the .* run, 100"):
        compiled(accumulate_steps=101)
    small = own_networks.small(10, (8, 8, 1))
    silent = Distiller(small, method="ce", term_weights={"ce": 0.0})
    with pytest.raises(UserError, match="label_smoothing=0.1 .* lacks or weighs 0"):
        build.compile_distiller(silent, Config(label_smoothing=0.1), 10)
    binary = Distiller(own_networks.small(1, (8, 8, 1)), method="ce", task="binary")
    config = Config(label_smoothing=0.1, task="binary")
    with pytest.raises(UserError, match="shares a label among classes, the task 'bin"):
        build.compile_distiller(binary, config, 10)
    monkeypatch.setattr(build, "_several_replicas", lambda: True)
    for settings in ({"clip_norm": 1.0}, {"accumulate_steps": 2}):
        with pytest.raises(UserError, match="one device, .*: set --num_devices=1"):
            compiled(**settings)


def test_a_run_folder_from_before_takes_the_default_rate():
    assert not differing(Config(lr=0.05), Config())
    assert differing(Config(lr=0.05), Config(lr=0.1))
    decays = Config(optimizer="adamw", weight_decay=0.05), Config(optimizer="adamw")
    assert not differing(*decays)


@pytest.mark.run
@pytest.mark.parametrize(
    "settings",
    [
        {"dtype_policy": "mixed_float16", "taps": "one", "phases": "progressive"},
        {"method": "dml"},  # a teacher that learns, and is averaged too
    ],
)
def test_whole_runs_with_all_of_them(settings, tmp_path):
    every = {
        "optimizer": "adamw",
        "lr": 0.02,
        "ema": 0.7,
        "clip_norm": 1.0,
        "accumulate_steps": 2,
        "label_smoothing": 0.1,
        "epochs": 4,
        "run_dir": str(tmp_path / "run"),
    }
    if "method" in settings:
        (tmp_path / "peer.flags").write_text(f"--model={OWN.model}\n")
        every |= {
            "teacher_flagfile": str(tmp_path / "peer.flags"),
            "untrained_teacher": True,
        }
    result = experiment.run(dataclasses.replace(OWN, **{**every, **settings}))
    assert result.test["ensemble"] > 0.3  # a tenth is chance
    if "method" not in settings:
        assert_kept_are_the_averages(tmp_path / "run")


def assert_kept_are_the_averages(folder):
    """The student's file has the averages of the checkpoint, which goes on raw."""
    newest = max((folder / "checkpoints").glob("*.npz"))
    with np.load(newest) as archive:
        paths = json.loads(archive["header"].tobytes())["paths"]
        stored = {path: archive[f"variable_{i:06d}"] for i, path in enumerate(paths)}
    kernel = load_model(folder).get_layer("two").kernel.numpy()
    np.testing.assert_array_equal(kernel, stored["adamw/two_kernel_average"])
    assert not np.array_equal(kernel, stored["two/kernel"])


def test_the_rate_starts_anew_with_each_phase():
    settings = {"lr": 0.1, "lr_schedule": "cosine", "epochs": 10, "warmup_epochs": 1}
    config = Config(
        phases="progressive", phase_epochs="4,6", phase_lr="restart", **settings
    )
    made = build.make_optimizer(config, 5, ["exit_1", "exit_2"])
    rates = [float(made._learning_rate(step)) for step in (0, 5, 20, 25, 50)]
    np.testing.assert_allclose(rates, [0, 0.1, 0, 0.1, 0], atol=1e-8)
    shared = dataclasses.replace(config, phase_lr="shared")
    made = build.make_optimizer(shared, 5, ["exit_1", "exit_2"])
    assert float(made._learning_rate(20)) > 0.07
