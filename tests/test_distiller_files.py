"""What a file of a Distiller holds of its teacher, and how training goes on."""

import keras
import numpy as np
import pytest

from tf_mskd import Distiller, UserError, save_model
from tf_mskd.utils.run_paths import RunPaths

pytestmark = pytest.mark.run  # a second each of saving and loading

layers = keras.layers
ONCE = {"epochs": 1, "batch_size": 8, "shuffle": False, "verbose": 0}


@pytest.fixture
def batch(digits):
    return digits[0][:16], digits[1][:16]


def plain(width=4, name="plain"):
    """A network of one exit, built in milliseconds."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(width),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dense(10),
        ],
        name=name,
    )


def big():
    """A teacher, with statistics that are not those of a new network."""
    teacher = plain(256, name="teacher")
    norm = teacher.layers[3]
    norm.set_weights([w + k for k, w in enumerate(norm.get_weights(), start=1)])
    return teacher


def compiled(teacher, method="mskd", optimizer=None, **arguments):
    distiller = Distiller(plain(), teacher, method, **arguments)
    optimizer = optimizer or keras.optimizers.Adam(0.01)
    distiller.compile(optimizer, run_eagerly=True)
    return distiller


def same(one, other):
    pairs = zip(one.state_variables, other.state_variables, strict=True)
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs)


def trained(path, batch, teacher=None, **arguments):
    """A Distiller of one epoch, saved to `path`."""
    distiller = compiled(teacher or big(), **arguments)
    distiller.fit(*batch, **ONCE)
    distiller.save(path)
    return distiller


def assert_goes_on(path, distiller, batch):
    """The loaded Distiller trains on as the one that was saved does."""
    again = keras.saving.load_model(path)
    for model in (distiller, again):
        model.fit(*batch, **ONCE)
    assert same(distiller, again)
    return again


# ---- a teacher in the file


def test_a_stored_teacher_trains_on_at_once(batch, tmp_path):
    path = tmp_path / "d.keras"
    distiller = trained(path, batch, store_teacher=True)
    again = assert_goes_on(path, distiller, batch)
    for one, other in zip(
        distiller.teacher.get_weights(), again.teacher.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    again.save(tmp_path / "again.keras")
    assert_goes_on(tmp_path / "again.keras", again, batch)


def test_weights_alone_hold_the_teacher_if_it_is_to_be_stored(tmp_path):
    teacher = big()
    size = sum(weight.nbytes for weight in teacher.get_weights())
    for stored in (False, True):
        path = tmp_path / f"{stored}.weights.h5"
        compiled(teacher, "mskd", "sgd", store_teacher=stored).save_weights(path)
        assert (path.stat().st_size > size) == stored
    other = big()
    distiller = compiled(other, "mskd", "sgd", store_teacher=True)
    distiller.load_weights(tmp_path / "True.weights.h5")
    for one, two in zip(teacher.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    untouched = big()
    before = untouched.get_weights()
    distiller = compiled(untouched, "mskd", "sgd")
    distiller.load_weights(tmp_path / "True.weights.h5")
    for one, two in zip(before, untouched.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_checkpoint_of_weights_is_small(batch, tmp_path):
    teacher, path = big(), tmp_path / "best.weights.h5"
    size = sum(weight.nbytes for weight in teacher.get_weights())
    checkpoint = keras.callbacks.ModelCheckpoint(
        path, "ensemble_accuracy", save_best_only=True, save_weights_only=True
    )
    compiled(teacher).fit(*batch, callbacks=[checkpoint], **ONCE)
    assert 0 < path.stat().st_size < size


def test_without_a_teacher_there_is_none_to_store():
    with pytest.raises(UserError, match="store_teacher=True needs a teacher, got None"):
        compiled(None, "ce", store_teacher=True)


class Killed(keras.callbacks.Callback):
    """Ends training in the middle of the second epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations.numpy() == 3:
            raise KeyboardInterrupt


def test_backup_and_restore_goes_on_from_the_last_epoch(batch, tmp_path):
    def started():
        keras.utils.set_random_seed(0)
        distiller = compiled(big())
        distiller.run_eagerly = False
        return distiller

    three = {**ONCE, "epochs": 3}
    straight = started()
    straight.fit(*batch, **three)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        started().fit(*batch, callbacks=[backup, Killed()], **three)
    again = started()
    again.fit(*batch, callbacks=[backup], **three)
    assert again.optimizer.iterations.numpy() == 6
    assert same(straight, again)


def test_the_best_epoch_is_kept_whole(batch, tmp_path):
    path = tmp_path / "best.keras"
    best = keras.callbacks.ModelCheckpoint(
        path, "val_ensemble_accuracy", save_best_only=True
    )
    distiller = compiled(big(), store_teacher=True)
    data = {"validation_data": batch, **ONCE}
    logs = distiller.fit(*batch, callbacks=[best], **data).history
    best.best = 2.0  # no epoch is better
    distiller.fit(*batch, callbacks=[best], **data)
    again = keras.saving.load_model(path)
    told = again.evaluate(*batch, batch_size=8, verbose=0, return_dict=True)
    expected = {name: logs[f"val_{name}"][0] for name in told}
    assert told == pytest.approx(expected, 1e-5)
    again.fit(*batch, **data)
    assert same(distiller, again)


def test_a_teacher_that_no_file_can_hold_is_refused(tmp_path):
    distiller = compiled(lambda images: keras.ops.reshape(images, (-1, 64))[:, :10])
    with pytest.raises(UserError, match="No file can hold .*: save distiller.student"):
        distiller.save(tmp_path / "d.keras")
    distiller.save_weights(tmp_path / "d.weights.h5")
    distiller.load_weights(tmp_path / "d.weights.h5")


# ---- a teacher by its path


@pytest.mark.parametrize("kind", ["file", "run folder"])
def test_a_teacher_may_be_a_path_and_is_read_from_it_again(kind, batch, tmp_path):
    teacher = big()
    path = tmp_path / "teacher.keras" if kind == "file" else tmp_path / "run"
    if kind == "run folder":
        path.mkdir()
        save_model(teacher, RunPaths(path).student)
    else:
        save_model(teacher, path)
    distiller = trained(tmp_path / "d.keras", batch, path)
    for one, two in zip(
        teacher.get_weights(), distiller.teacher.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    size = sum(weight.nbytes for weight in teacher.get_weights())
    assert (tmp_path / "d.keras").stat().st_size < size
    again = assert_goes_on(tmp_path / "d.keras", distiller, batch)
    again.save(tmp_path / "again.keras")
    assert_goes_on(tmp_path / "again.keras", again, batch)


@pytest.mark.parametrize("change", ["gone", "other weights", "other classes"])
def test_a_teacher_that_is_not_at_its_path_is_waited_for(
    change, batch, tmp_path, capsys
):
    teacher, path = big(), tmp_path / "teacher.keras"
    save_model(teacher, path)
    distiller = trained(tmp_path / "d.keras", batch, str(path))
    if change == "gone":
        path.unlink()
    else:
        save_model(big() if change == "other weights" else plain(), path)
    again = keras.saving.load_model(tmp_path / "d.keras")
    reason = "No model file at" if change == "gone" else "holds other weights"
    line = "The Distiller's teacher is not read, it waits for its weights: "
    told = capsys.readouterr().out
    assert line in told and reason in told and str(path) in told
    with pytest.raises(UserError, match="no weights of the teacher .*set_weights"):
        again.fit(*batch, **ONCE)
    with pytest.raises(UserError, match="no weights of the teacher"):
        again.train_on_batch(*batch)
    again.save(tmp_path / "again.keras")  # which waits as well
    save_model(teacher, path)
    assert_goes_on(tmp_path / "again.keras", distiller, batch)


def test_a_path_without_a_teacher_is_refused(tmp_path):
    with pytest.raises(UserError, match="No model file at 'mskd'"):
        compiled("mskd")
    with pytest.raises(UserError, match="Cannot read model file .*teacher.h5"):
        (tmp_path / "teacher.h5").write_bytes(b"")
        compiled(tmp_path / "teacher.h5")
    with pytest.raises(UserError, match="Cannot read model file"):
        (tmp_path / "teacher.keras").write_bytes(b"")
        compiled(tmp_path / "teacher.keras")


def test_a_teacher_that_learns_starts_from_its_path_and_is_in_the_file(
    batch, tmp_path, capsys
):
    teacher = tmp_path / "teacher.keras"
    save_model(plain(), teacher)
    distiller = trained(tmp_path / "d.keras", batch, teacher, method="dml")
    teacher.unlink()
    assert_goes_on(tmp_path / "d.keras", distiller, batch)
    assert not capsys.readouterr().out
