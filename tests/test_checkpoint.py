"""Checkpoints: what goes in comes out, what is another run's is refused by name."""

import io
import json
import pickle
import shutil
import types
import zipfile

import keras
import numpy as np
import pytest

from tf_mskd import SGD, Distiller, UserError
from tf_mskd.methods.common.create import create_method
from tf_mskd.training.checkpoint import (
    CheckpointManager,
    read_checkpoint,
    write_checkpoint,
)
from tf_mskd.training.cursor import Cursor


def variables_of(*names, shape=2):
    """Variables with the paths of these names, each filled with its number."""
    return [
        keras.Variable(np.full(shape, i), name=name, dtype="float32")
        for i, name in enumerate(names)
    ]


def values(variables):
    return [np.array(v.numpy()) for v in variables]


def written(folder, variables, step=1):
    CheckpointManager(folder).write(step, variables, {"step": step})
    return folder / f"checkpoint_{step:010d}.npz"


# ---- paths of variables


def test_variables_that_change_places_are_refused(tmp_path):
    path = written(tmp_path, variables_of("exit_1", "exit_2"))
    swapped = variables_of("exit_2", "exit_1")
    before = values(swapped)
    message = "another order, 'exit_1' in place of 'exit_2', 'exit_2' in place of 'exi"
    with pytest.raises(UserError, match=message):
        read_checkpoint(path, swapped)
    np.testing.assert_array_equal(values(swapped), before)


def test_a_renamed_variable_is_named_with_the_nearest(tmp_path):
    path = written(tmp_path, variables_of("stem", "exit_1", "exit_2"))
    here = variables_of("stem", "exit_1", "exits_2")
    message = (
        r"another run or version: it lacks 'exits_2' \(nearest: 'exit_2'\); "
        r"it has 'exit_2' \(nearest: 'exits_2'\), which this run has not"
    )
    with pytest.raises(UserError, match=message):
        read_checkpoint(path, here)


def test_of_many_missing_variables_three_are_named(tmp_path):
    path = written(tmp_path, variables_of("a"))
    here = variables_of("a", *(f"dense_{i}" for i in range(5)))
    with pytest.raises(UserError, match="lacks 'dense_0', .*, 'dense_2' and 2 more"):
        read_checkpoint(path, here)


def test_one_variable_twice_is_not_one(tmp_path):
    path = written(tmp_path, variables_of("a", "a"))
    with pytest.raises(UserError, match="it has 2 variables, this run 1"):
        read_checkpoint(path, variables_of("a"))


@pytest.mark.parametrize(
    ("here", "message"),
    [
        (np.zeros(3, np.float32), r"'a' is float32 \(2,\), here float32 \(3,\)"),
        (np.zeros(2, np.int32), r"'a' is float32 \(2,\), here int32 \(2,\)"),
    ],
)
def test_another_shape_or_type_is_named(tmp_path, here, message):
    path = written(tmp_path, variables_of("a"))
    with pytest.raises(UserError, match=message):
        read_checkpoint(path, [keras.Variable(here, name="a", dtype=here.dtype)])


def compiled(tiny, method, **arguments):
    student = tiny((1, 2), dropout=0.1, aux_heads=method.aux_heads)
    distiller = Distiller(student, tiny((1, 2), dropout=0.1), method)
    distiller.compile(SGD(0.1), jit_compile=False)
    distiller.optimizer.build(distiller.trainable_variables)
    return distiller


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("name", ["crd", "fitnet,dbt", "dml"])
def test_a_second_distiller_of_one_process_reads_the_first_ones(
    name, policy, tiny, tmp_path
):
    """Whatever names Keras counts on for: layers, seeds, optimizers, the method's."""
    arguments = {"num_examples": 20, "num_negatives": 4} if name == "crd" else {}
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        first, second = (
            compiled(tiny, create_method(name, **arguments)) for _ in range(2)
        )
    finally:
        keras.config.set_dtype_policy(before)
    expected = first.state_variables
    for i, variable in enumerate(expected):
        variable.assign(np.full(variable.shape, i % 100))
    path = written(tmp_path, expected)
    assert read_checkpoint(path, second.state_variables) == {"step": 1}
    for a, b in zip(expected, second.state_variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


def test_another_method_is_refused_by_its_variables(tiny, tmp_path):
    first = compiled(tiny, create_method("mskd"))
    path = written(tmp_path, first.state_variables)
    other = compiled(tiny, create_method("ce"))
    message = "it has 'distiller/term_weight_kd'.*, which this run has not"
    with pytest.raises(UserError, match=message):
        read_checkpoint(path, other.state_variables)


# ---- formats


def old_file(path):
    """A file of format 1: values and a cursor, no paths."""
    cursor = np.frombuffer(json.dumps({"step": 1}).encode(), np.uint8)
    np.savez(path, variable_000000=np.zeros(2, np.float32), cursor=cursor)


def test_a_file_of_the_old_format_is_refused_by_name(tmp_path):
    path, variables = tmp_path / "checkpoint_0000000001.npz", variables_of("a", "b")
    old_file(path)
    message = "written by another version of tf_mskd: format 1, this version reads 2"
    with pytest.raises(UserError, match=message):
        read_checkpoint(path, variables)


def test_a_run_with_old_checkpoints_alone_does_not_start_again(tmp_path):
    old_file(tmp_path / "state_0000000001.npz")
    message = "state_0000000001.npz' was written by another version .* remove "
    with pytest.raises(UserError, match=message):
        CheckpointManager(tmp_path).restore(variables_of("a"))


def test_a_file_of_a_format_to_come_is_refused(tmp_path):
    path = tmp_path / "checkpoint_0000000001.npz"
    header = json.dumps({"format": 3, "everything": "else"}).encode()
    np.savez(path, header=np.frombuffer(header, np.uint8))
    with pytest.raises(UserError, match="format 3, this version reads 2"):
        read_checkpoint(path, variables_of("a"))


# ---- the newest two


def test_files_of_other_names_are_no_checkpoints(tmp_path):
    variables = variables_of("a")
    checkpoints = CheckpointManager(tmp_path)
    names = ("backup", "000000000a", "99999999999")
    for name in names:
        (tmp_path / f"checkpoint_{name}.npz").write_bytes(b"mine")
    for step in (1, 2, 3):
        checkpoints.write(step, variables, {"step": step})
    assert checkpoints.restore(variables) == {"step": 3}
    assert checkpoints.newest_step() == 3
    kept = {path.stem.partition("_")[2] for path in tmp_path.iterdir()}
    assert kept == {*names, "0000000002", "0000000003"}


def test_a_damaged_newest_checkpoint_falls_back_to_the_previous_one(tmp_path):
    variables = variables_of("a", shape=3)
    checkpoints = CheckpointManager(tmp_path)
    for step in (1, 2):
        variables[0].assign(np.full(3, step))
        checkpoints.write(step, variables, {"step": step})
    newest = tmp_path / "checkpoint_0000000002.npz"
    data = bytearray(newest.read_bytes())
    data[len(data) // 3] ^= 0xFF
    newest.write_bytes(data)
    with pytest.warns(UserWarning, match="is damaged.*Trying the previous one"):
        cursor = checkpoints.restore(variables)
    assert cursor == {"step": 1}
    np.testing.assert_array_equal(variables[0].numpy(), [1.0, 1.0, 1.0])


def test_a_damaged_newest_one_does_not_take_the_place_of_a_good_one(tmp_path):
    variables = variables_of("a")
    checkpoints = CheckpointManager(tmp_path)
    for step in (2, 4):
        checkpoints.write(step, variables, {"step": step})
    (tmp_path / "checkpoint_0000000004.npz").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="is damaged.*Trying the previous one"):
        assert checkpoints.restore(variables) == {"step": 2}
    checkpoints.write(3, variables, {"step": 3})
    assert [p.name[-5] for p in sorted(tmp_path.iterdir())] == ["2", "3"]


def test_a_folder_without_checkpoints_restores_nothing(tmp_path):
    checkpoints = CheckpointManager(tmp_path / "new")
    assert checkpoints.restore(variables_of("a")) is None
    assert checkpoints.newest_step() == 0


# ---- the position


def test_a_cursor_comes_back_as_it_was_written(tmp_path):
    checkpoints, variables = CheckpointManager(tmp_path), variables_of("a")
    cursor = Cursor(epochs=3, steps_per_epoch=5)
    assert not cursor.restore(checkpoints, variables)
    cursor.step, cursor.seconds, cursor.history = 7, 1.5, [{"epoch": 1, "loss": 0.5}]
    cursor.write(checkpoints, variables)
    again = Cursor(epochs=3, steps_per_epoch=5)
    assert again.restore(checkpoints, variables)
    assert vars(again) == vars(cursor)
    assert (again.epoch, again.step_of_epoch, again.is_at_end) == (1, 2, False)
    assert str(again) == "at epoch 2, step 2 of 5"
    again.step, again.history = 15, [{}, {}]  # the last validation is missing
    assert not again.is_at_end and not again.has_steps_to_do
    assert str(again) == "at epoch 3, step 5 of 5"
    again.history = [{}, {}, {}]
    assert again.is_at_end and str(again) == "after the last epoch"


@pytest.mark.parametrize(
    "changed",
    [
        {"step": 16},
        {"step": -1},
        {"step": "7"},
        {"history": []},
        {"history": [{"epoch": 2}]},
        {"history": [1]},
        {"seconds": None},
    ],
)
def test_a_position_of_another_run_is_refused(tmp_path, changed):
    checkpoints, variables = CheckpointManager(tmp_path), variables_of("a")
    position = {"step": 7, "seconds": 0.0, "history": [{"epoch": 1}], **changed}
    checkpoints.write(7, variables, position)
    with pytest.raises(UserError, match="no position of a run of 3 epochs of 5 steps"):
        Cursor(epochs=3, steps_per_epoch=5).restore(checkpoints, variables)


# ---- hostile files


HEADER = {"format": 2, "paths": ["a"], "cursor": {}}


def file_of(header=HEADER, pack=zipfile.ZIP_STORED, **members):
    """The bytes of an npz file, with members that `write_checkpoint` never writes."""
    if isinstance(header, dict):
        header = json.dumps(header).encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", pack) as archive:
        for name, value in {"header": header, **members}.items():
            if isinstance(value, bytes):
                value = np.frombuffer(value, np.uint8)
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, value)
    return content.getvalue()


def huge():
    """An array that claims 10^15 elements, and has none."""
    content = io.BytesIO()
    head = {"descr": "<f4", "fortran_order": False, "shape": (10**15,)}
    np.lib.format.write_array_header_1_0(content, head)
    archive = io.BytesIO(file_of())
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("variable_000000.npy", content.getvalue())
    return archive.getvalue()


def npy(value):
    content = io.BytesIO()
    np.save(content, value)
    return content.getvalue()


ONE = np.ones(2, np.float32)
OBJECTS = np.array([{"a": 1}], dtype=object)
DAMAGED, OTHER = "is damaged", "belongs to another run"
HOSTILE = {
    "empty": (b"", DAMAGED),
    "zip without an end": (b"PK\x03\x04", DAMAGED),
    "pickle": (pickle.dumps([1]), DAMAGED),
    "array without archive": (npy(ONE), DAMAGED),
    "objects": (file_of(variable_000000=OBJECTS), DAMAGED),
    "huge": (huge(), DAMAGED),
    "packed": (
        file_of(pack=zipfile.ZIP_DEFLATED, variable_000000=np.zeros(10**7)),
        "'header.npy' is compressed",
    ),
    "wrong type": (file_of(variable_000000=ONE.astype("int8")), OTHER),
    "wrong shape": (file_of(variable_000000=ONE[:1]), OTHER),
    "text": (file_of(variable_000000=np.array(["a", "b"])), OTHER),
    "outer name": (file_of(**{"../../variable_000000": ONE}), DAMAGED),
    "no header": (file_of(b"", variable_000000=ONE), DAMAGED),
    "a huge header": (file_of(np.array(2**60), variable_000000=ONE), DAMAGED),
    "nested header": (file_of(b"[" * 10**5, variable_000000=ONE), DAMAGED),
    "no format": (file_of({"paths": ["a"]}, variable_000000=ONE), DAMAGED),
    "list for a header": (file_of(b"[2]", variable_000000=ONE), DAMAGED),
    "no paths": (file_of({**HEADER, "paths": 7}, variable_000000=ONE), DAMAGED),
    "more paths than values": (
        file_of({**HEADER, "paths": ["a"] * 10**6}, variable_000000=ONE),
        DAMAGED,
    ),
    "nested paths": (
        file_of({**HEADER, "paths": [["\x1b[2J"]]}, variable_000000=ONE),
        OTHER,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_and_changes_nothing(tmp_path, name):
    content, message = HOSTILE[name]
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(content)
    variable = keras.Variable(np.full(2, 7.0, np.float32), name="a")
    with pytest.raises(UserError, match=message) as caught:
        read_checkpoint(path, [variable])
    assert str(caught.value).isprintable()
    np.testing.assert_array_equal(variable.numpy(), [7.0, 7.0])


def test_any_changed_byte_is_noticed_or_means_nothing(tmp_path):
    path = tmp_path / "checkpoint.npz"
    variable = keras.Variable(np.arange(3.0), name="a")
    write_checkpoint(path, [("a", variable.numpy())], {"step": 5})
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        variable.assign(np.zeros(3))
        try:
            assert read_checkpoint(path, [variable]) == {"step": 5}, place
            np.testing.assert_array_equal(variable.numpy(), [0.0, 1.0, 2.0], str(place))
        except UserError:
            refused += 1
    assert refused > len(whole) / 2


# ---- room on the disk

ONE = 3 * 4 * 2  # bytes of the variables of `three`


def three():
    return [*variables_of("a", "b"), keras.Variable(np.zeros(2), dtype="float32")]


def free_space(monkeypatch, free):
    usage = types.SimpleNamespace(total=10**9, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)


@pytest.mark.parametrize(("kept", "needed"), [(0, 3), (1, 2), (2, 1)])
def test_the_first_checkpoint_needs_room_for_those_of_a_run(
    tmp_path, monkeypatch, kept, needed
):
    for step in range(kept):
        written(tmp_path, three(), step)
    free_space(monkeypatch, needed * ONE - 1)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError) as caught:
        written(tmp_path, three(), 9)
    assert str(caught.value) == (
        "A run with 2 checkpoints of 24 bytes, and a third while it is written, needs "
        f"{needed * ONE} bytes of disk space, {needed * ONE - 1} bytes are free in "
        f"{tmp_path}: make room, or move the run folder to another disk."
    )
    assert sorted(tmp_path.iterdir()) == before
    free_space(monkeypatch, needed * ONE)
    written(tmp_path, three(), 9)


def test_room_is_looked_for_once_and_again_after_a_failure(tmp_path, monkeypatch):
    manager = CheckpointManager(tmp_path)
    manager.write(1, three(), {})
    free_space(monkeypatch, 0)
    manager.check_space(three())
    manager.write(2, three(), {})

    def full(file, **arrays):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(UserError, match="No space left on device"):
            manager.write(3, three(), {})
    with pytest.raises(UserError, match="needs 24 bytes of disk space, 0 bytes are"):
        manager.write(3, three(), {})
    CheckpointManager(tmp_path, read_only=True).check_space(three())
