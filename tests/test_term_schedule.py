"""The schedule of term weights: set at epoch starts, on the constant weights."""

import keras
import numpy as np
import pytest

from tf_mskd import SGD, Distiller
from tf_mskd.methods.mskd import MSKD
from tf_mskd.training.term_schedule import TermSchedule


class Ramp(MSKD):
    """Weighs "kd" by a share of the run and "ce" by the epoch before."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.asked = []

    def schedule(self, epoch, epochs, history):
        self.asked.append((epoch, epochs, [logs["loss"] for logs in history]))
        factors = {"kd": (epoch + 1) / epochs}
        if history:
            factors["ce"] = float(history[-1]["loss"])
        return factors


class Recorder(keras.callbacks.Callback):
    """Keeps the weights of terms as each batch finds them."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        weights = self.model.term_weights.items()
        values = {name: float(variable) for name, variable in weights}
        self.seen.setdefault(self.epoch, []).append(values)


@pytest.fixture
def distiller(tiny):
    def make(method=None, eager=True, **arguments):
        method = method or Ramp()
        made = Distiller(tiny((1, 2)), tiny((2,), 1 / 8), method, **arguments)
        made.compile(SGD(0.05), run_eagerly=eager, jit_compile=False)
        return made

    return make


@pytest.fixture
def batch(digits):
    return digits[0][:24], digits[1][:24]


def weights_of(distiller):
    return {name: float(v) for name, v in distiller.term_weights.items()}


def started(distiller, epochs, history=None):
    """A schedule as the loop of a run starts it."""
    callback = TermSchedule()
    callbacks = keras.callbacks.CallbackList([callback], model=distiller, epochs=epochs)
    callbacks.on_train_begin(None if history is None else {"history": history})
    return callbacks


# ---- Distiller.set_term_factors


def test_factors_multiply_the_constant_weights(distiller):
    made = distiller(term_weights={"kd": 3.0})
    made.set_term_factors({"kd": 0.5})
    np.testing.assert_allclose([*weights_of(made).values()], [0.1, 1.5], 1e-6)


def test_factors_do_not_add_up_and_a_term_not_named_comes_back(distiller):
    made = distiller()
    for _ in range(3):
        made.set_term_factors({"kd": 0.5})
    np.testing.assert_allclose([*weights_of(made).values()], [0.1, 0.45], 1e-6)
    made.set_term_factors({"ce": 2.0})
    np.testing.assert_allclose([*weights_of(made).values()], [0.2, 0.9], 1e-6)
    made.set_term_factors({})
    np.testing.assert_allclose([*weights_of(made).values()], [0.1, 0.9], 1e-6)


def test_a_factor_of_a_term_that_the_run_does_not_have_is_passed_over(distiller):
    made = distiller()
    made.set_term_factors({"at": 0.0})
    np.testing.assert_allclose([*weights_of(made).values()], [0.1, 0.9], 1e-6)


def test_the_loss_follows_the_factors_without_a_new_trace(distiller, batch):
    made = distiller(eager=False)
    made.optimizer.learning_rate = 0.0  # the batch statistics alone move
    traces, losses = [], []
    step = made.train_step
    made.train_step = lambda data: traces.append(len(losses)) or step(data)
    for factors in ({}, {"ce": 0.0, "kd": 0.0}, {"ce": 0.0}, {"kd": 0.0}):
        given = {"batch_size": 24, "verbose": 0, "callbacks": [Force(factors)]}
        losses.append(made.fit(*batch, **given).history["loss"][0])
    assert losses[1] == 0
    np.testing.assert_allclose(losses[0], losses[2] + losses[3], 1e-4)
    assert min(losses[2], losses[3]) > 0
    assert set(traces) == {0}, f"traced in fits {traces}"


class Force(keras.callbacks.Callback):
    """Sets factors after the schedule of the epoch has."""

    def __init__(self, factors):
        super().__init__()
        self.factors = factors

    def on_train_batch_begin(self, batch, logs=None):
        self.model.set_term_factors(self.factors)


# ---- Distiller.fit


def test_weights_move_at_epoch_starts_and_only_there(distiller, batch):
    made, recorder = distiller(), Recorder()
    fitted = made.fit(
        *batch, epochs=3, batch_size=8, verbose=0, callbacks=[recorder]
    ).history
    assert [len(values) for values in recorder.seen.values()] == [3, 3, 3]
    for epoch, values in recorder.seen.items():
        kd = 0.9 * (epoch + 1) / 3
        ce = 0.1 * (fitted["loss"][epoch - 1] if epoch else 1)
        for value in values:
            np.testing.assert_allclose([value["ce"], value["kd"]], [ce, kd], 1e-5)


def test_the_method_is_asked_with_the_logs_of_the_epochs_before(distiller, batch):
    made = distiller()
    loss = made.fit(*batch, epochs=3, verbose=0).history["loss"]
    assert [asked[:2] for asked in made.method.asked] == [(0, 3), (1, 3), (2, 3)]
    for epoch, (_, _, before) in enumerate(made.method.asked):
        np.testing.assert_allclose(before, loss[:epoch], 1e-6)


def test_the_logs_hold_every_term(distiller, batch):
    class Terms(Ramp):
        def schedule(self, epoch, epochs, history):
            self.asked += [sorted(n for n in logs if "/" in n) for logs in history]
            return {}

    made = distiller(Terms())
    made.fit(*batch, epochs=2, verbose=0)
    assert made.method.asked == [["ce/exit_1", "ce/exit_2", "kd/exit_1", "kd/exit_2"]]


def test_another_fit_starts_from_the_constant_weights(distiller, batch):
    made = distiller(term_weights={"ce": 1.0, "kd": 2.0})
    for _ in range(2):
        recorder = Recorder()
        made.fit(*batch, epochs=2, verbose=0, callbacks=[recorder])
        values = recorder.seen[0][0]
        np.testing.assert_allclose([values["ce"], values["kd"]], [1.0, 1.0], 1e-6)


def test_a_method_without_schedule_keeps_its_weights(distiller, batch):
    made, recorder = distiller(MSKD()), Recorder()
    made.fit(*batch, epochs=2, verbose=0, callbacks=[recorder])
    for values in recorder.seen.values():
        np.testing.assert_allclose([*values[0].values()], [0.1, 0.9], 1e-6)


def test_callbacks_of_ones_own_still_run(distiller, batch):
    made, stopper = distiller(), keras.callbacks.EarlyStopping("loss", patience=0)
    stopper.baseline = -1.0
    logs = made.fit(*batch, epochs=5, verbose=0, callbacks=[stopper]).history
    assert len(logs["loss"]) < 5


def test_one_callback_needs_no_list(distiller, batch):
    recorder = Recorder()
    distiller().fit(*batch, 8, 1, 0, recorder)
    assert len(recorder.seen[0]) == 3


# ---- a run that resumes


def test_a_run_that_goes_on_takes_over_the_logs_of_its_start(distiller):
    made = distiller()
    history = [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.0}]
    callbacks = started(made, 4, history)
    callbacks.on_epoch_begin(2)
    assert made.method.asked == [(2, 4, [3.0, 2.0])]
    np.testing.assert_allclose([*weights_of(made).values()], [0.2, 0.9 * 3 / 4], 1e-6)
    callbacks.on_epoch_end(2, {"loss": 5.0})
    callbacks.on_epoch_begin(3)
    assert made.method.asked[-1] == (3, 4, [3.0, 2.0, 5.0])
    np.testing.assert_allclose([*weights_of(made).values()], [0.5, 0.9], 1e-6)


def test_what_the_loop_adds_to_its_history_does_not_count_twice(distiller):
    made, history = distiller(), [{"loss": 3.0}]
    callbacks = started(made, 4, history)
    for epoch, loss in ((1, 2.0), (2, 1.0)):
        callbacks.on_epoch_begin(epoch)
        callbacks.on_epoch_end(epoch, {"loss": loss})
        history.append({"loss": loss})
    callbacks.on_epoch_begin(3)
    assert made.method.asked[-1] == (3, 4, [3.0, 2.0, 1.0])


def test_a_going_on_run_sets_the_weights_of_one_never_stopped(distiller):
    losses = (4.0, 3.0, 2.0)
    whole, rest = distiller(), distiller()
    callbacks = started(whole, 4)
    for epoch, loss in enumerate(losses):
        callbacks.on_epoch_begin(epoch)
        callbacks.on_epoch_end(epoch, {"loss": loss})
    callbacks.on_epoch_begin(3)
    started(rest, 4, [{"loss": loss} for loss in losses]).on_epoch_begin(3)
    assert weights_of(whole) == weights_of(rest)
    assert rest.method.asked[-1] == whole.method.asked[-1]


def test_a_run_without_history_starts_empty(distiller):
    made = distiller()
    started(made, 4).on_epoch_begin(0)
    assert made.method.asked == [(0, 4, [])]
