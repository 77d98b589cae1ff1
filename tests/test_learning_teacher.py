"""Methods whose teacher learns: DML's peers and the teacher of bilateral KD."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference, support
from tf_mskd import SGD, Distiller, UserError
from tf_mskd.data import sources
from tf_mskd.methods.common.create import create_method
from tf_mskd.models.saving import load_model, save_model
from tf_mskd.runs import experiment
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.training import checkpoint

METHODS = {"dml": {}, "bilateral": {"teacher_rate": 0.25}}
RATE, MOMENTUM, L2 = 0.1, 0.9, 1e-3


def values(variables):
    return [v.numpy() for v in variables]


def trained(name, tiny, digits, steps=2, **arguments):
    """A distiller after some steps, and what both networks were before."""
    method = create_method(name, **(arguments or METHODS[name]))
    distiller = Distiller(tiny((2, 4)), tiny((2, 4), 1 / 8), method)
    distiller.compile(SGD(RATE, MOMENTUM, l2=L2), jit_compile=False)
    distiller.optimizer.build(distiller.trainable_variables)
    before = [values(n.variables) for n in (distiller.student, distiller.teacher)]
    for step in range(steps):
        rows = slice(8 * step, 8 * step + 8)
        distiller.train_step((digits[0][rows], digits[1][rows]))
    return distiller, before


@pytest.mark.parametrize("name", METHODS)
def test_both_networks_move(name, tiny, digits):
    distiller, before = trained(name, tiny, digits, steps=1)
    for network, old in zip(
        (distiller.student, distiller.teacher), before, strict=True
    ):
        for variable, value in zip(network.variables, old, strict=True):
            is_offset = "beta" in variable.path or "bias" in variable.path
            moved = not np.array_equal(variable.numpy(), value)
            assert moved or is_offset, f"{name}: {variable.path} did not move"


def own_step(network, images, label, targets, temperature):
    """Gradients of one network's own loss, from TensorFlow's functions alone."""
    variables = network.trainable_variables
    with tf.GradientTape() as tape:
        exits = network(images, training=True)
        total = 0.0
        for exit_name, z in exits.items():
            ce = tf.nn.sparse_softmax_cross_entropy_with_logits(label, z)
            p = tf.nn.softmax(targets[exit_name] / temperature)
            log_p = tf.nn.log_softmax(targets[exit_name] / temperature)
            log_q = tf.nn.log_softmax(z / temperature)
            kl = tf.reduce_sum(p * (log_p - log_q), -1)
            total += tf.reduce_mean(ce + temperature**2 * kl)
    return [g.numpy() for g in tape.gradient(total, [v.value for v in variables])]


@pytest.mark.parametrize("name", METHODS)
def test_two_steps_are_those_of_two_networks_with_two_optimizers(name, tiny, digits):
    """Each network gets the gradient of its own loss, at its own rate."""
    distiller, before = trained(name, tiny, digits, steps=2)
    method = distiller.method
    networks = [
        keras.models.clone_model(n) for n in (distiller.student, distiller.teacher)
    ]
    for network, start in zip(networks, before, strict=True):
        for variable, value in zip(network.variables, start, strict=True):
            variable.assign(value)
    rates = (RATE, RATE * method.teacher_rate)
    velocities = [None, None]
    for step in range(2):
        rows = slice(8 * step, 8 * step + 8)
        images, label = digits[0][rows], digits[1][rows]
        statistics = [values(n.non_trainable_variables) for n in networks]
        logits = [n(images, training=True) for n in networks]
        for network, old in zip(networks, statistics, strict=True):
            for variable, value in zip(
                network.non_trainable_variables, old, strict=True
            ):
                variable.assign(value)  # that pass was for the targets alone
        for i in (0, 1):
            batch = images, label, logits[1 - i]
            gradients = own_step(networks[i], *batch, method.temperature)
            weights = networks[i].trainable_variables
            decayed = [
                g + L2 * w.numpy() for g, w in zip(gradients, weights, strict=True)
            ]
            old = velocities[i] or [0.0] * len(decayed)
            velocities[i] = [
                MOMENTUM * v + g for v, g in zip(old, decayed, strict=True)
            ]
            for weight, velocity in zip(weights, velocities[i], strict=True):
                weight.assign(weight.numpy() - rates[i] * velocity)
    pairs = zip((distiller.student, distiller.teacher), networks, strict=True)
    for together, apart in pairs:
        for a, b in zip(together.variables, apart.variables, strict=True):
            got, expected = a.numpy(), b.numpy()  # fused batch norms round otherwise
            np.testing.assert_allclose(got, expected, 1e-4, 1e-5, err_msg=a.path)


def test_twins_stay_twins(tiny, digits):
    """Identical peers see identical batches: they teach each other nothing, ever."""
    student, teacher = tiny((4,)), tiny((4,))
    teacher.set_weights(student.get_weights())
    distiller = Distiller(student, teacher, "dml")
    distiller.compile(SGD(RATE, MOMENTUM, l2=L2), jit_compile=False)
    for _ in range(3):
        logs = distiller.train_step((digits[0][:8], digits[1][:8]))
        assert abs(float(logs["dml/exit_4"])) < 1e-6
    for a, b in zip(student.variables, teacher.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), 1e-5, 1e-6, err_msg=a.path)


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_rate_factor_scales_the_rate_and_nothing_else(nesterov):
    factor, rates = 0.25, [0.1, 0.1, 0.02]
    start = reference.fill(0.4, [3, 2])
    gradients = [reference.fill(k, [3, 2]) for k in range(3)]
    slow, fast = (keras.Variable(start.astype("f4")) for _ in range(2))
    optimizer = SGD(0.1, MOMENTUM, nesterov, l2=0.05)
    optimizer.rate_factors = {id(slow): factor}
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.learning_rate = rate
        optimizer.apply([tf.constant(gradient, "float32")] * 2, [slow, fast])
    for variable, scale in ((slow, factor), (fast, 1.0)):
        scaled = [scale * rate for rate in rates]
        options = {"momentum": MOMENTUM, "nesterov": nesterov, "l2": 0.05}
        expected = reference.sgd(start, gradients, scaled, **options)
        np.testing.assert_allclose(variable.numpy(), expected, 1e-5, 1e-6)


def test_the_teachers_first_step_is_its_fraction_of_the_full_one(tiny, digits):
    moves = []
    for rate in (1.0, 0.25):
        keras.utils.set_random_seed(0)
        settings = {"steps": 1, "teacher_rate": rate}
        distiller, (_, before) = trained("bilateral", tiny, digits, **settings)
        pairs = zip(distiller.teacher.variables, before, strict=True)
        moves.append([v.numpy() - old for v, old in pairs if v.trainable])
    assert any(np.abs(move).max() > 1e-3 for move in moves[0])
    for full, quarter in zip(*moves, strict=True):
        np.testing.assert_allclose(quarter, full / 4, 1e-3, 1e-7)


def test_a_slower_teacher_needs_the_librarys_optimizer(tiny):
    distiller = Distiller(tiny(), tiny(), "bilateral")
    with pytest.raises(UserError, match="lowers the teacher's rate: use tf_mskd.SGD"):
        distiller.compile(keras.optimizers.SGD(0.1))
    Distiller(tiny(), tiny(), "dml").compile(keras.optimizers.SGD(0.1))


def test_a_slower_teacher_in_mixed_float16(tiny, digits):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        distiller, before = trained("bilateral", tiny, digits, steps=1)
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    factors = distiller.optimizer.inner_optimizer.rate_factors
    rate = METHODS["bilateral"]["teacher_rate"]
    slowed = {id(v) for v in distiller.teacher.trainable_variables}
    assert factors == dict.fromkeys(slowed, rate)


def test_the_state_of_a_run_holds_the_teacher(tiny):
    for name in ("dml", "bilateral", "mskd"):
        distiller = Distiller(tiny(), tiny(), name)
        distiller.compile(SGD(RATE), jit_compile=False)
        kept = {id(v) for v in distiller.state_variables}
        is_kept = [id(v) in kept for v in distiller.teacher.variables]
        assert all(is_kept) if name != "mskd" else not any(is_kept), name


# ---- whole runs

PEERS = dataclasses.replace(
    support.TINY, width=0.125, exits="2", epochs=2, train_fraction=0.3
)


@pytest.fixture
def peer(tmp_path):
    """Flagfile of a peer, wider than the student."""
    path = tmp_path / "peer.flags"
    path.write_text(to_flagfile(dataclasses.replace(PEERS, width=0.25)))
    return path


def config_of(folder, peer, **settings):
    given = {"method": "dml", "untrained_teacher": True, "teacher_flagfile": str(peer)}
    return dataclasses.replace(PEERS, run_dir=str(folder), **{**given, **settings})


@pytest.mark.run
def test_the_command_trains_an_untrained_teacher_too(peer, tmp_path):
    folder = tmp_path / "dml"
    flagfile = tmp_path / "dml.flags"
    flagfile.write_text(to_flagfile(config_of("", peer, epochs=6, train_fraction=1.0)))
    arguments = [f"--flagfile={flagfile}", f"--run_dir={folder}"]
    done = support.Command("tf_mskd.train", *arguments).finish()
    assert done.returncode == 0, done.stderr[-3000:]
    assert "on the test split" not in done.stdout  # it has learnt nothing yet
    assert not (tmp_path / "peer").exists(), "the peer's own run must not be done"
    result = json.loads((folder / "result.json").read_text())
    assert result["teacher"] == "resnet10" and result["method"] == "dml"
    assert min(result["test"]["exit_2"], result["test_teacher"]["exit_2"]) > 0.8
    teacher, student = load_model(folder / "teacher.keras"), load_model(folder)
    assert teacher.count_params() > student.count_params()
    test = sources.load_source("digits").test
    for network, table in ((teacher, "test_teacher"), (student, "test")):
        guesses = np.argmax(network.predict(test.images, verbose=0)["exit_2"], -1)
        hits = np.mean(guesses == test.labels)
        np.testing.assert_allclose(result[table]["exit_2"], hits, atol=1e-4)
    terms = {"ce", "dml", "dml_teacher_ce", "dml_teacher"}
    assert {f"{term}/exit_2" for term in terms} <= set(support.history_of(folder)[0])


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.run
def test_an_interrupted_run_of_peers_ends_as_an_uninterrupted_one(
    peer, tmp_path, monkeypatch
):
    experiment.run(config_of(tmp_path / "whole", peer))
    write, writes = checkpoint.CheckpointManager.write, []

    def write_and_die(self, *args):
        write(self, *args)
        writes.append(args[0])
        if len(writes) == 2:
            raise Killed

    monkeypatch.setattr(checkpoint.CheckpointManager, "write", write_and_die)
    often = {"checkpoint_minutes": 0.0, "checkpoint_steps": 4}
    parts = config_of(tmp_path / "parts", peer, **often)
    with pytest.raises(Killed):
        experiment.run(parts)
    assert writes == [4, 8], "the first epoch has 12 steps"
    experiment.run(parts)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert support.history_of(whole) == support.history_of(parts)
    for file in ("student.keras", "teacher.keras"):
        networks = [load_model(folder / file) for folder in (whole, parts)]
        for a, b in zip(*(n.weights for n in networks), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy(), f"{file}: {a.path}")


@pytest.mark.run
def test_a_given_teacher_is_trained_further(peer, tiny, tmp_path):
    file = tmp_path / "trained.keras"
    save_model(tiny((2,), 1 / 4), file)
    settings = {
        "teacher": str(file),
        "teacher_flagfile": "",
        "untrained_teacher": False,
    }
    settings |= {"method": "bilateral", "epochs": 1, "train_fraction": 0.1}
    result = experiment.run(config_of(tmp_path / "bilateral", peer, **settings))
    before = load_model(file)
    after = load_model(tmp_path / "bilateral" / "teacher.keras")
    assert result.test_teacher["exit_2"] > 0
    moved = [
        not np.array_equal(a.numpy(), b.numpy())
        for a, b in zip(before.weights, after.weights, strict=True)
    ]
    assert all(moved), f"{moved.count(False)} of {len(moved)} stayed"


@pytest.mark.run
def test_a_run_draws_the_rows_that_its_method_makes_of_an_image(peer, tmp_path):
    settings = {"method": "dats", "epochs": 1, "train_fraction": 0.1}
    experiment.run(config_of(tmp_path / "dats", peer, **settings))
    picture = tf.io.decode_png((tmp_path / "dats" / "views.png").read_bytes()).numpy()
    assert picture.shape == (2 * 10, 8 * 10, 1)
    assert np.all(picture[8:10] == 255) and picture[:8].std() > 1
    assert np.any(picture[:8] != picture[10:18])


@pytest.mark.run
@pytest.mark.parametrize(
    "settings, message",
    [
        ({"teacher_flagfile": ""}, "--untrained_teacher needs --teacher_flagfile"),
        (
            {"method": "kd"},
            "--method=kd does not train its teacher: drop --untr",
        ),
    ],
)
def test_an_untrained_teacher_of_no_use_is_refused(settings, message, peer, tmp_path):
    with pytest.raises(UserError, match=message):
        experiment.run(config_of(tmp_path / "refused", peer, **settings))
