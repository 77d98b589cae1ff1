"""The Distiller: its loss, what a step moves and what it leaves, Keras' own loop."""

import keras
import numpy as np
import pytest

from tests import reference
from tf_mskd import SGD, Distiller, UserError, callbacks, load_model, models, save_model
from tf_mskd.models.saving import read_model

BATCH = 12
GUIDES = {  # method -> student exit -> teacher exit, for two exits under three
    "ce": {"exit_1": None, "exit_2": None},
    "kd": {"exit_2": "exit_3"},
    "mskd": {"exit_1": "exit_3", "exit_2": "exit_3"},
    "oto": {"exit_1": "exit_2", "exit_2": "exit_3"},
}
WEIGHTS = {"ce": (1.0, 0.0), "kd": (0.1, 0.9), "mskd": (0.1, 0.9), "oto": (0.1, 0.9)}


@pytest.fixture
def batch(digits):
    images, labels = digits
    return images[:BATCH], labels[:BATCH]


@pytest.fixture
def teacher(tiny):
    return tiny((1, 2, 3), width=1 / 8, dropout=0.5)  # it must rest in teaching


def compiled(student, teacher=None, method="mskd", lr=0.1, eager=True, **arguments):
    distiller = Distiller(student, teacher, method, **arguments)
    distiller.compile(SGD(lr, momentum=0.0), run_eagerly=eager, jit_compile=False)
    return distiller


def twin(model):
    """A model of the same kind with the same weights."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def values(variables):
    return [np.array(v.numpy()) for v in variables]


def same(before, variables):
    """Whether each variable is what it was, bit for bit."""
    after = values(variables)
    return [np.array_equal(b, a) for b, a in zip(before, after, strict=True)]


def outputs_of(model, images, training):
    outputs = model(images, training=training)
    return {name: np.array(z) for name, z in outputs.items()}


def expected_loss(student, teacher, batch, method="mskd"):
    images, labels = batch
    ce, kd = WEIGHTS[method]
    return reference.objective(
        GUIDES[method],
        outputs_of(twin(student), images, training=True),
        outputs_of(teacher, images, training=False),
        labels,
        ce,
        kd,
        temperature=4.0,
    )


# ---- the objective


@pytest.mark.parametrize("method", GUIDES)
def test_loss_of_a_step_is_the_formula_on_the_networks_own_logits(
    method, tiny, teacher, batch
):
    student = tiny((2,) if method == "kd" else (1, 2))
    expected = expected_loss(student, teacher, batch, method)
    logs = compiled(student, teacher, method).train_step(batch)
    np.testing.assert_allclose(logs["loss"], expected, 1e-4, err_msg=method)


def test_logs_hold_the_bare_terms_and_accuracies(tiny, teacher, batch):
    images, labels = batch
    student = tiny()
    exits = outputs_of(twin(student), images, training=True)
    guide = outputs_of(teacher, images, training=False)["exit_3"]
    logs = compiled(student, teacher, term_weights={"kd": 0.5}).train_step(batch)
    expected = {
        "ensemble_accuracy": np.mean(
            reference.ensemble_scores(exits, "logits").argmax(-1) == labels
        )
    }
    for name, z in exits.items():
        expected[f"ce/{name}"] = reference.cross_entropy(labels, z).mean()
        expected[f"kd/{name}"] = reference.softened_kl(guide, z, 4.0).mean()
        expected[f"{name}_accuracy"] = np.mean(z.argmax(-1) == labels)
    assert set(logs) == {"loss", *expected}
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, 1e-4, err_msg=name)


def test_term_and_exit_weights_multiply(tiny, teacher, batch):
    student = tiny()
    distiller = compiled(
        student,
        teacher,
        term_weights={"ce": 2.0, "kd": 0.25},
        exit_weights={"exit_1": 0.5},
    )
    logs = distiller.train_step(batch)
    expected = sum(
        exit_weight * (2.0 * logs[f"ce/{name}"] + 0.25 * logs[f"kd/{name}"])
        for name, exit_weight in (("exit_1", 0.5), ("exit_2", 1.0))
    )
    np.testing.assert_allclose(logs["loss"], expected, 1e-5)


def test_weights_are_variables_that_a_callback_may_set(tiny, batch):
    distiller = compiled(tiny(), method="ce", eager=False, lr=0.0)
    logs = distiller.train_on_batch(*batch, return_dict=True)
    distiller.exit_weights["exit_1"].assign(0.0)
    distiller.reset_metrics()
    changed = distiller.train_on_batch(*batch, return_dict=True)
    both = logs["ce/exit_1"] + logs["ce/exit_2"]
    np.testing.assert_allclose(logs["loss"], both, 1e-5)
    np.testing.assert_allclose(changed["loss"], changed["ce/exit_2"], 1e-5)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_evaluate_gives_the_cross_entropy_of_the_vote(kind, tiny, batch):
    images, labels = batch
    student = tiny()
    distiller = compiled(student, method="ce", ensemble=kind)
    logs = distiller.evaluate(images, labels, 5, verbose=0, return_dict=True)
    exits = outputs_of(student, images, training=False)
    scores = reference.ensemble_scores(exits, kind)
    log_p = np.log(scores) if kind == "probabilities" else reference.log_softmax(scores)
    expected = -log_p[np.arange(BATCH), labels].mean()
    np.testing.assert_allclose(logs["loss"], expected, 1e-4, err_msg=kind)
    accuracy = np.mean(scores.argmax(-1) == labels)
    np.testing.assert_allclose(logs["ensemble_accuracy"], accuracy, 1e-5)
    assert set(logs) == {
        "loss",
        "exit_1_accuracy",
        "exit_2_accuracy",
        "ensemble_accuracy",
    }


@pytest.mark.parametrize("training", [True, False])
def test_a_weight_of_two_is_the_row_twice(training, tiny, teacher, batch):
    images, labels = batch
    rows = [0, 1, 1, 2, 4, 4, 4]
    weight = np.bincount(rows, minlength=BATCH).astype(np.float32)
    distiller = compiled(tiny(), teacher)
    logits = outputs_of(distiller.student, images, training=False)
    repeated = {name: z[rows] for name, z in logits.items()}
    weighted = distiller.compute_loss(images, labels, logits, weight, training=training)
    measured = distiller.compute_metrics(images, labels, logits, weight)
    distiller.reset_metrics()
    twice = distiller.compute_loss(
        images[rows], labels[rows], repeated, training=training
    )
    np.testing.assert_allclose(BATCH * weighted, len(rows) * twice, 1e-5)
    again = distiller.compute_metrics(images[rows], labels[rows], repeated)
    for name, value in again.items():
        np.testing.assert_allclose(measured[name], value, 1e-5, 1e-6, err_msg=name)


def test_the_logged_loss_of_an_epoch_is_the_mean_over_its_rows(tiny, batch):
    images, labels = batch
    weight = np.arange(BATCH, dtype=np.float32) % 4
    distiller = compiled(tiny(), method="ce")
    logs = distiller.evaluate(
        images, labels, 5, sample_weight=weight, verbose=0, return_dict=True
    )
    exits = outputs_of(distiller.student, images, training=False)
    losses = reference.cross_entropy(labels, reference.ensemble_scores(exits, "logits"))
    expected = np.mean(losses * weight)
    np.testing.assert_allclose(logs["loss"], expected, 1e-4)


def test_labels_may_come_in_a_dict(tiny, teacher, batch):
    images, labels = batch
    student = tiny()
    plain = compiled(twin(student), teacher).train_step((images, labels))
    named = {"label": labels, "index": np.arange(BATCH)}
    as_dict = compiled(student, teacher).train_step((images, named))
    assert float(plain["loss"]) == float(as_dict["loss"])


@pytest.mark.parametrize("weighted", ["fit", "evaluate"])
def test_weights_count_alike_beside_bare_labels_and_a_dict(weighted, tiny, batch):
    images, labels = batch
    weight = np.arange(BATCH, dtype=np.float32) % 3
    named = {"label": labels, "index": np.arange(BATCH)}
    student, results = tiny(), []
    for targets in (labels, named):
        distiller = compiled(twin(student), method="ce")
        arguments = dict(batch_size=BATCH, sample_weight=weight, verbose=0)
        if weighted == "fit":
            history = distiller.fit(images, targets, shuffle=False, **arguments).history
            results.append({name: value[0] for name, value in history.items()})
        else:
            logs = distiller.evaluate(images, targets, return_dict=True, **arguments)
            results.append(logs)
    assert results[0] == results[1]


# ---- what a step moves


def test_the_teacher_stays_the_same_bit_for_bit(tiny, digits, teacher):
    before = values(teacher.variables)
    assert len(before) > len(teacher.trainable_variables)
    images, labels = digits[0][:64], digits[1][:64]
    distiller = compiled(tiny(), teacher, "oto", eager=False)
    distiller.fit(images, labels, batch_size=16, epochs=2, verbose=0)
    distiller.evaluate(images, labels, verbose=0)
    assert all(same(before, teacher.variables))
    assert teacher.trainable_variables  # it may be trained again


def test_evaluate_moves_nothing(tiny, teacher, batch):
    distiller = compiled(tiny(), teacher)
    distiller.train_step(batch)
    network = [distiller.student, distiller.teacher, distiller.optimizer]
    before = [values(part.variables) for part in network]
    distiller.evaluate(*batch, verbose=0)
    for part, was in zip(network, before, strict=True):
        assert all(same(was, part.variables)), part.name


@pytest.mark.parametrize("phases", ["joint", "detached"])
def test_batch_norm_moves_once_a_step(phases, tiny, teacher, batch):
    student = tiny()
    once = twin(student)
    once(batch[0], training=True)
    compiled(student, teacher, phases=phases).train_step(batch)
    got = values(student.non_trainable_variables)
    expected = values(once.non_trainable_variables)
    assert expected
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, 1e-5, 1e-6, err_msg=phases)


def test_batch_norm_moves_by_its_formula(tiny, batch):
    student = tiny()
    norm = next(
        layer
        for layer in student.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    x = np.array(keras.Model(student.input, norm.input)(batch[0], training=True))
    compiled(student, method="ce").train_step(batch)
    mean = 0.1 * x.mean((0, 1, 2))  # from 0, with momentum 0.9
    variance = 0.9 + 0.1 * x.var((0, 1, 2))  # from 1
    np.testing.assert_allclose(norm.moving_mean, mean, 1e-4, 1e-6)
    np.testing.assert_allclose(norm.moving_variance, variance, 1e-4, 1e-6)


def test_a_step_is_the_optimizer_on_the_numeric_gradient(tiny, teacher, batch):
    """The bias of the last head, whose gradient the reference gives exactly."""
    student = tiny()
    bias = student.get_layer("exit_2").bias
    before = bias.numpy()
    images, labels = batch
    logits = outputs_of(twin(student), images, training=True)["exit_2"]
    guide = outputs_of(teacher, images, training=False)["exit_3"]

    def loss(shift):
        z = logits + shift
        kd = reference.softened_kl(guide, z, 4.0).mean()
        return 0.1 * reference.cross_entropy(labels, z).mean() + 0.9 * kd

    gradient = reference.numeric_gradient(loss, np.zeros(10))
    compiled(student, teacher, lr=0.1).train_step(batch)
    np.testing.assert_allclose(bias.numpy(), before - 0.1 * gradient, 1e-3, 1e-6)


@pytest.mark.parametrize("method", ["mskd", "oto", "ce"])
def test_every_student_variable_learns(method, tiny, teacher, batch):
    student = tiny()
    before = values(student.trainable_variables)
    compiled(student, teacher, method).train_step(batch)
    for was_kept, variable in zip(
        same(before, student.trainable_variables),
        student.trainable_variables,
        strict=True,
    ):
        assert not was_kept, f"{method}: {variable.path} did not move"


def test_an_exit_of_weight_zero_leaves_its_head_alone(tiny, batch):
    student = tiny()
    head = student.get_layer("exit_1")
    before = values(head.variables)
    distiller = compiled(student, method="ce", exit_weights={"exit_1": 0.0})
    logs = distiller.train_step(batch)
    assert all(same(before, head.variables))
    assert float(logs["loss"]) == float(logs["ce/exit_2"])


@pytest.mark.parametrize("phases, stops", [("detached", True), ("joint", False)])
def test_detached_stages_learn_from_their_own_exit_alone(phases, stops, tiny, batch):
    student = tiny((1, 2, 3))
    parts = {
        k: models.sub_model(student, f"exit_{k}").trainable_variables for k in (2, 3)
    }
    deepest = [v for v in parts[3] if all(v is not other for other in parts[2])]
    before = values(parts[2]), values(deepest)
    compiled(
        student,
        method="ce",
        phases=phases,
        exit_weights={"exit_1": 0.0, "exit_2": 0.0},
    ).train_step(batch)
    moved = not all(same(before[0], parts[2]))
    assert moved is not stops, f"{phases}: earlier stages moved: {moved}"
    assert not any(same(before[1], deepest)), phases


def test_detached_and_joint_agree_on_the_loss(tiny, teacher, batch):
    student = tiny()
    expected = expected_loss(student, teacher, batch)
    logs = compiled(student, teacher, phases="detached").train_step(batch)
    np.testing.assert_allclose(logs["loss"], expected, 1e-4)


# ---- progressive training


class Recorder(keras.callbacks.Callback):
    """Keeps each epoch's logs and the student's values."""

    def on_train_begin(self, logs=None):
        self.logs, self.weights = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))
        self.weights.append(values(self.model.student.variables))


@pytest.mark.run
@pytest.mark.parametrize("method", ["mskd", "oto"])
def test_progressive_training_leaves_deeper_stages_until_their_phase(
    method, tiny, teacher, digits
):
    student = tiny((1, 2, 3))
    shallow = [models.sub_model(student, f"exit_{k}").variables for k in (1, 2, 3)]
    reach = [
        next(k for k in (1, 2, 3) if any(v is w for w in shallow[k - 1]))
        for v in student.variables
    ]
    distiller = compiled(student, teacher, method, eager=False, phases="progressive")
    assert distiller.trained_exits == ["exit_1"]
    recorder, start = Recorder(), values(student.variables)
    images, labels = digits[0][:32], digits[1][:32]
    phases = callbacks.ExitPhases(3)
    distiller.fit(
        images,
        labels,
        batch_size=16,
        epochs=3,
        verbose=0,
        shuffle=False,
        callbacks=[phases, recorder],
    )
    history = [start, *recorder.weights]
    for epoch, logs in enumerate(recorder.logs, start=1):
        exits = {f"exit_{k}" for k in (1, 2, 3) if k <= epoch}
        logged = {name.removesuffix("_accuracy") for name in logs}
        assert exits == {n for n in logged if n.startswith("exit")}, epoch
        terms = {n.partition("/")[2] for n in logs if "/" in n}
        assert exits == terms, f"{method}, phase {epoch}: {terms}"
        for k, old, new in zip(reach, history[epoch - 1], history[epoch], strict=True):
            kept = np.array_equal(old, new)
            assert kept == (k > epoch), f"{method}, phase {epoch}, stage {k}"
    assert distiller.trained_exits == distiller.exits


def test_progressive_phase_loss_is_the_sum_over_its_exits(tiny, teacher, batch):
    student = tiny()
    images, labels = batch
    exits = outputs_of(twin(student), images, training=True)
    teacher_exits = outputs_of(teacher, images, training=False)
    guides = {"exit_1": "exit_2"}  # the alignment of two exits under three
    expected = reference.objective(guides, exits, teacher_exits, labels, 0.1, 0.9, 4.0)
    distiller = compiled(student, teacher, "oto", phases="progressive")
    np.testing.assert_allclose(
        distiller.train_step(batch)["loss"], expected, 1e-4, err_msg="oto, phase 1"
    )
    assert list(distiller.teacher_outputs(images)) == ["exit_2"]
    assert list(distiller(images, training=True)) == ["exit_1"]


def test_phase_lengths_may_be_given(tiny):
    distiller = compiled(tiny((1, 2, 3)), method="ce", phases="progressive")
    phases = callbacks.ExitPhases(9, (2, 3, 4))
    phases.set_model(distiller)
    seen = []
    for epoch in range(9):
        phases.on_epoch_begin(epoch)
        seen.append(distiller.phase)
    assert seen == [1, 1, 2, 2, 2, 3, 3, 3, 3]


def test_a_phase_that_does_not_exist_is_refused(tiny):
    distiller = compiled(tiny(), method="ce", phases="progressive")
    with pytest.raises(UserError, match=r"phase must be 1..2, got 3"):
        distiller.set_phase(3)


# ---- as any Keras model


def test_fit_learns_real_digits_and_callbacks_work(tiny, digits):
    images, labels = digits
    student = tiny(width=1 / 4)
    distiller = compiled(student, method="ce", eager=False, lr=0.3)
    monitor = "val_ensemble_accuracy"
    stop = keras.callbacks.EarlyStopping(monitor, mode="max", patience=1)
    history = distiller.fit(
        images[:512],
        labels[:512],
        batch_size=32,
        epochs=6,
        validation_data=(images[1500:], labels[1500:]),
        callbacks=[stop],
        verbose=0,
    ).history
    assert history["loss"][-1] < 0.6 * history["loss"][0], history["loss"]
    assert max(history[monitor]) > 0.7, history[monitor]
    guess = distiller.predict(images[1500:], verbose=0)
    assert set(guess) == {"exit_1", "exit_2"}
    accuracy = np.mean(guess["exit_2"].argmax(-1) == labels[1500:])
    np.testing.assert_allclose(accuracy, history["val_exit_2_accuracy"][-1], atol=1e-6)


@pytest.mark.run
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy, tiny, digits):
    images, labels = digits[0][:32], digits[1][:32]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        student, teacher = tiny(), tiny((1, 2, 3))
        distiller = compiled(student, teacher, eager=False)
        weights = values(student.trainable_variables)
        history = distiller.fit(images, labels, batch_size=16, verbose=0).history
        outputs = student(images[:4], training=False)
        loss = distiller.compute_loss(images[:4], labels[:4], outputs)
    finally:
        keras.config.set_dtype_policy(before)
    assert student.get_layer("feature_2").compute_dtype == policy[6:]
    for name, value in history.items():
        assert np.isfinite(value).all(), f"{policy} {name}: {value}"
    dtypes = {str(z.dtype) for z in [loss, *outputs.values()]}
    assert "float32" in dtypes.pop() and not dtypes, policy
    assert not all(same(weights, student.trainable_variables)), policy


@pytest.mark.parametrize("training", [True, False])
def test_images_reach_the_student_unrounded_in_mixed_precision(training, tiny):
    images = np.linspace(100, 101, 4 * 64, dtype=np.float32).reshape(4, 8, 8, 1)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        student = tiny()
        expected = outputs_of(twin(student), images, training)
        got = outputs_of(Distiller(student, method="ce"), images, training)
    finally:
        keras.config.set_dtype_policy(before)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_mixed_float16_scales_the_loss(tiny):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        distiller = compiled(tiny(), method="ce")
    finally:
        keras.config.set_dtype_policy(before)
    assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)


def test_state_variables_hold_all_that_training_moves(tiny, teacher, batch):
    distiller = Distiller(tiny(), teacher, "oto")
    distiller.compile(SGD(0.1), run_eagerly=True)
    distiller.train_step(batch)
    state = distiller.state_variables
    ids = {id(v) for v in state}
    assert len(ids) == len(state)
    assert ids.isdisjoint(id(v) for v in teacher.variables)
    before = values(distiller.variables + distiller.optimizer.variables)
    distiller.train_step(batch)
    moved = distiller.variables + distiller.optimizer.variables
    for kept, variable in zip(same(before, moved), moved, strict=True):
        assert kept or id(variable) in ids, variable.path


# ---- files


def test_a_saved_student_gives_the_same_outputs(tiny, batch, tmp_path):
    student = tiny()
    compiled(student, method="ce").train_step(batch)
    save_model(student, tmp_path / "student.keras")
    expected = outputs_of(student, batch[0], training=False)
    for path in (tmp_path / "student.keras", str(tmp_path)):
        got = outputs_of(load_model(path), batch[0], training=False)
        assert list(got) == list(expected)
        for name in expected:
            np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    assert [p.name for p in tmp_path.iterdir()] == ["student.keras"]


def test_a_failed_save_leaves_the_old_file(tiny, tmp_path):
    path = tmp_path / "student.keras"
    save_model(tiny(), path)
    content = path.read_bytes()

    class Broken:
        def save(self, temporary):
            temporary.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(UserError, match="disk full"):
        save_model(Broken(), path)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["student.keras"]


def test_load_refuses_what_it_cannot_trust(tiny, tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(UserError, match=r"No model file at '.*model.keras'"):
        load_model(path)
    with pytest.raises(UserError, match=r"No model file at '.*student.keras'"):
        load_model(tmp_path)
    path.write_bytes(b"this is no zip file")
    with pytest.raises(UserError, match=r"Cannot read model file '.*model.keras': "):
        load_model(path)
    save_model(tiny(), path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match="Cannot read model file"):
        load_model(path)

    image = keras.Input((8, 8, 1))
    code = keras.layers.Lambda(lambda x: x)(keras.layers.Flatten()(image))
    hostile = keras.Model(image, {"exit_1": keras.layers.Dense(10)(code)})
    save_model(hostile, path)
    with pytest.raises(UserError, match="Cannot read model file .*[Ll]ambda"):
        load_model(path)

    without_exits = {
        "has no output named exit_1, exit_2": two_outputs(),
        r"must be logits \[B, classes\], got \(None, 6, 6, 3\)": keras.Model(
            image, keras.layers.Conv2D(3, 3)(image)
        ),
    }
    for message, model in without_exits.items():
        save_model(model, path)
        with pytest.raises(UserError, match=message):
            load_model(path)
    with pytest.raises(UserError, match=r"must end in .keras or .h5 or .hdf5, got"):
        read_model(tmp_path / "model.weights")
    save_model(keras.Model(image, Own()(image)).layers[-1], path)
    with pytest.raises(UserError, match="must hold a functional .*, got a Own"):
        load_model(path)


@keras.saving.register_keras_serializable("tests")
class Own(keras.Model):
    """Written as a class."""

    def call(self, x):
        return keras.ops.mean(x, (1, 2))


@pytest.mark.parametrize("end", ["logits", "probabilities"])
@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_plain_classifier_is_read_with_one_exit(tmp_path, name, end):
    image = keras.Input((8, 8, 1))
    x = keras.layers.Dense(10)(keras.layers.Flatten()(image))
    made = keras.layers.Softmax()(x) if end == "probabilities" else x
    plain = keras.Model(image, made)
    plain.save(tmp_path / name)
    read = load_model(tmp_path / name)
    assert list(read.output) == ["exit_1"]
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    found = read(images)["exit_1"]
    if end == "probabilities":
        found = keras.ops.softmax(found)
    np.testing.assert_allclose(found, plain(images), rtol=1e-5, atol=1e-6)


def test_code_in_an_h5_file_is_not_run(tmp_path):
    code = keras.layers.Lambda(lambda x: x)
    keras.Sequential([keras.Input((4,)), code]).save(tmp_path / "model.h5")
    with pytest.raises(UserError, match="Cannot read model file .*[Ll]ambda"):
        load_model(tmp_path / "model.h5")


# ---- mistakes


def two_outputs():
    image = keras.Input((8, 8, 1))
    names = ("logits", "other")
    made = {n: keras.layers.Dense(10)(keras.layers.Flatten()(image)) for n in names}
    return keras.Model(image, made, name="plain")


def test_wrong_teachers_are_refused(tiny):
    student = tiny()
    for method in ("mskd", "oto"):
        with pytest.raises(UserError, match=f"'{method}' needs a teacher, got None"):
            Distiller(student, method=method)
    with pytest.raises(UserError, match=r"classes: teacher '.*' has 7, .* has 10"):
        Distiller(student, tiny(classes=7))
    with pytest.raises(UserError, match=r"image size: .* has \(16, 16, 1\), student"):
        Distiller(student, tiny(shape=(16, 16, 1)))
    with pytest.raises(UserError, match="'plain' has no output named exit_1.*but 2"):
        Distiller(student, two_outputs())
    with pytest.raises(UserError, match="Student exit_1 needs exit_1 of the teacher"):
        Distiller(student, tiny((2,)), "oto")


def test_wrong_students_are_refused(tiny):
    with pytest.raises(UserError, match="'plain' has no output named exit_1.*but 2"):
        Distiller(two_outputs(), method="ce")
    with pytest.raises(UserError, match="'kd' trains one exit, the student has 2"):
        Distiller(tiny(), tiny(), "kd")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"phases": "progresive"}, "Unknown phases .* 'progressive'"),
        ({"ensemble": "logit"}, "Unknown ensemble 'logit'; .* 'logits'"),
        ({"method": "cee"}, "Unknown method 'cee'"),
        ({"method": 3}, "must be a name or a Method, got 3"),
        ({"term_weights": {"kd": 1.0}}, "Unknown term in term_weights 'kd'.* ce"),
        ({"exit_weights": {"exit_3": 1.0}}, "in exit_weights 'exit_3'; .*exit_"),
        ({"exit_weights": {"exit_1": -1.0}}, r"\['exit_1'\] must be >= 0, got -1.0"),
        ({"term_weights": {"ce": float("nan")}}, r"\['ce'\] must be >= 0, got nan"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tiny):
    with pytest.raises(UserError, match=message):
        Distiller(tiny(), **{"method": "ce", **arguments})
