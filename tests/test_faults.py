"""Fault -> message -> state: what a run does when the world around it breaks."""

import dataclasses
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.support import ROOT, TINY, Command, store, temporary_files
from tf_mskd.data.sources import load_source
from tf_mskd.models.saving import load_model, save_model
from tf_mskd.runs import experiment
from tf_mskd.runs.comparison import read_runs
from tf_mskd.runs.flags import read_flagfile, to_flagfile
from tf_mskd.runs.result import read_result
from tf_mskd.runs.run_folder import RunFolder
from tf_mskd.tasks import classification
from tf_mskd.training import checkpoint, stopping
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError

KEPT, NONE = "kept", "none"  # state of the run: as it was, or not begun


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclasses.dataclass
class World:
    """A prepared data set, a finished teacher, and a run stopped at step 8 of 15."""

    path: pathlib.Path

    @property
    def config(self):
        return dataclasses.replace(
            TINY,
            method="mskd",
            dataset="small",
            train_fraction=1.0,
            checkpoint_steps=3,
            data_dir=str(self.path / "data"),
            teacher=str(self.path / "teacher"),
            run_dir=str(self.path / "run"),
        )

    @property
    def run(self):
        return self.path / "run"

    @property
    def checkpoints(self):
        return sorted((self.run / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def first_world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("world"))
    digits = load_source("digits")
    parts = {"train": (digits.train, 185), "test": (digits.test, 40)}
    rows = {k: (s.images[:n], s.labels[:n]) for k, (s, n) in parts.items()}
    store(world.path / "data", "small", rows, tfds.features.Image(shape=(8, 8, 1)))
    alone = {
        "method": "ce",
        "teacher": "",
        "epochs": 1,
        "run_dir": world.config.teacher,
    }
    experiment.run(dataclasses.replace(world.config, **alone))
    write = checkpoint.CheckpointManager.write

    def write_and_die(self, step, *args):
        write(self, step, *args)
        if step == 8:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.CheckpointManager, "write", write_and_die)
        with pytest.raises(Killed):
            experiment.run(world.config)
    assert [path.stem[-2:] for path in world.checkpoints] == ["05", "08"]
    return world


@pytest.fixture
def world(first_world, tmp_path):
    """A copy to break."""
    shutil.copytree(first_world.path, tmp_path, dirs_exist_ok=True)
    flags = tmp_path / "run" / "flags.txt"
    text = flags.read_text().replace(str(first_world.path), str(tmp_path))
    flags.write_text(text)
    return World(tmp_path)


# ---- the disk


def full_disk(world, patch):
    def savez(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    patch.setattr(np, "savez", savez)
    return {"checkpoint_steps": 1}


def no_room_for_checkpoints(world, patch):
    usage = types.SimpleNamespace(total=10**9, free=1000)
    patch.setattr(shutil, "disk_usage", lambda folder: usage)


def read_only_folder(world, patch):
    def replace(source, target):
        raise OSError(30, "Read-only file system")

    patch.setattr(os, "replace", replace)


def all_checkpoints_damaged(world, patch):
    for path in world.checkpoints:
        path.write_bytes(path.read_bytes()[:-100])


def checkpoints_of_another_run(world, patch):
    for path in world.checkpoints:
        checkpoint.write_checkpoint(path, [("a", np.zeros(3))], {"step": 1})


def checkpoint_of_no_position(world, patch):
    path = world.checkpoints[-1]
    with np.load(path) as archive:
        paths = json.loads(archive["header"].tobytes())["paths"]
        values = [archive[name] for name in sorted(archive.files)[1:]]
    arrays = list(zip(paths, values, strict=True))
    checkpoint.write_checkpoint(path, arrays, {"step": 10**9, "history": []})


def checkpoints_are_a_file(world, patch):
    shutil.rmtree(world.run / "checkpoints")
    (world.run / "checkpoints").write_text("")


# ---- the data


def truncated_records(world, patch):
    (path,) = (world.path / "data").rglob("*train*record*")
    path.write_bytes(path.read_bytes()[:5000])


def records_of_another_set(world, patch):
    train, test = sorted((world.path / "data").rglob("*record*"), key=os.path.getsize)
    shutil.copy(test, train)


def truncated_description(world, patch):
    (path,) = (world.path / "data").rglob("dataset_info.json")
    path.write_text(path.read_text()[:100])


def label_out_of_range(world, patch):
    (path,) = (world.path / "data").rglob("label.labels.txt")
    path.write_text("\n".join(path.read_text().split()[:7]))
    return {"method": "ce", "teacher": ""}


def data_removed(world, patch):
    shutil.rmtree(world.path / "data" / "small")


def data_never_prepared(world, patch):
    return {"dataset": "cifar100"}


def image_folder(world, content):
    """A folder data set whose last training image has this content."""
    for split in ("train", "test"):
        for name in ("one", "two"):
            folder = world.path / "images" / split / name
            folder.mkdir(parents=True)
            for k in range(4):
                Image.new("RGB", (8, 8), (k, 50 * k, k)).save(folder / f"{k}.png")
    path = world.path / "images" / "train" / "two" / "3.png"
    path.write_bytes(content(path.read_bytes()))
    return {"dataset": "folder", "data_dir": str(world.path / "images")}


def corrupt_image(world, patch):
    return image_folder(world, lambda whole: b"no image")


def truncated_image(world, patch):
    return image_folder(world, lambda whole: whole[:-30])


def image_that_is_a_pipe(world, patch):
    changes = image_folder(world, lambda whole: whole)
    os.mkfifo(world.path / "images" / "train" / "two" / "4.png")
    return changes


# ---- numbers


def nan_in_the_loss(world, patch):
    kl = classification.softened_kl
    patch.setattr(classification, "softened_kl", lambda *args: kl(*args) * np.nan)


def nan_in_the_gradient(world, patch):
    def kl_of_no_gradient(*args):
        value = kl(*args)
        return value + keras.ops.sqrt(0.0 * value)  # 0, its derivative 0 / 0

    kl = classification.softened_kl
    patch.setattr(classification, "softened_kl", kl_of_no_gradient)


def nan_in_the_gradient_before_a_checkpoint(world, patch):
    nan_in_the_gradient(world, patch)
    return {"checkpoint_steps": 1}


def weights_that_explode(world, patch):
    return {"lr": 1e20, "lr_schedule": "constant"}


def teacher_of(world, number):
    model = load_model(world.config.teacher)
    last = model.get_layer("exit_2")
    last.set_weights([np.full_like(w, number) for w in last.get_weights()])
    save_model(model, world.path / "teacher" / "student.keras")


def teacher_of_nan(world, patch):
    teacher_of(world, np.nan)


def teacher_of_infinity(world, patch):
    teacher_of(world, np.inf)


# ---- the teacher's file


def swapped_teacher(world, patch):
    teacher_of(world, 0.5)


def damaged_teacher(world, patch):
    path = world.path / "teacher" / "student.keras"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def teacher_that_is_a_pickle(world, patch):
    path = world.path / "teacher" / "student.keras"
    path.write_bytes(pickle.dumps([1, 2]))


def teacher_with_code(world, patch):
    layers = [keras.Input((8, 8, 1)), keras.layers.Lambda(lambda x: x, name="exit_1")]
    keras.Sequential(layers).save(world.path / "teacher" / "student.keras")


def teacher_that_is_no_keras_file(world, patch):
    (world.path / "teacher.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    return {"teacher": str(world.path / "teacher.h5")}


# ---- flags and records


def teacher_flagfile(world, content):
    path = world.path / "bad.flags"
    path.write_bytes(content)
    return {"teacher": "", "teacher_flagfile": str(path)}


def bad_value_in_a_flagfile(world, patch):
    return teacher_flagfile(world, b"--epochs=many\n")


def binary_flagfile(world, patch):
    return teacher_flagfile(world, b"\x80\x04K\x01.")


def run_record_removed_and_teacher_swapped(world, patch):
    (world.run / "run.json").write_text('{"fingerprints": {"teacher": ["a"]}}')


def other_flags(world, patch):
    return {"epochs": 4, "lr": 0.5}


NOT_FINITE = r"not finite at epoch {}, step {} of 5: .* last good checkpoint is in"
FAULTS = [  # fault -> its message -> the state of the run
    (full_disk, "Cannot write .*checkpoint_0+9.*: No space left on device", KEPT),
    (no_room_for_checkpoints, "2 checkpoints of .* 1000 bytes are free in .*: ", KEPT),
    (read_only_folder, "Cannot write .*metrics.jsonl: Read-only file system", KEPT),
    (all_checkpoints_damaged, "is damaged: .* remove .*checkpoints", KEPT),
    (checkpoints_of_another_run, "another run or version: it lacks .* remove ", KEPT),
    (checkpoint_of_no_position, "no position of a run of 3 epochs of 5 steps", KEPT),
    (checkpoints_are_a_file, "Cannot make folder .*checkpoints: File exists", KEPT),
    (truncated_records, "Split 'train' of 'small' in .* cannot be read", KEPT),
    (records_of_another_set, "Split '.*' of 'small' in .* cannot be read", KEPT),
    (truncated_description, "'small' in .* description is damaged", KEPT),
    (label_out_of_range, r"Labels of 'small' must be in \[0, 7\), got [789]", NONE),
    (data_removed, "Unknown data set 'small'|'small' is not prepared", KEPT),
    (data_never_prepared, "tf_mskd.data.prepare --dataset=cifar100", NONE),
    (corrupt_image, "Cannot read image .*two/3.png", NONE),
    (truncated_image, "Cannot read image .*two/3.png", NONE),
    (image_that_is_a_pipe, "Cannot read image .*two/4.png.*no regular file", NONE),
    (nan_in_the_loss, NOT_FINITE.format(2, 4), KEPT),
    (nan_in_the_gradient, NOT_FINITE.format(2, 5), KEPT),
    (nan_in_the_gradient_before_a_checkpoint, NOT_FINITE.format(2, 4), KEPT),
    (weights_that_explode, NOT_FINITE.format(1, r"\d"), NONE),
    (teacher_of_nan, NOT_FINITE.format(1, 1), NONE),
    (teacher_of_infinity, NOT_FINITE.format(1, 1), NONE),
    (swapped_teacher, "teacher at .* is not the one that .* was started with", KEPT),
    (damaged_teacher, "Cannot read model file .*student.keras", KEPT),
    (teacher_that_is_a_pickle, "Cannot read model file .*student.keras", KEPT),
    (teacher_with_code, "Cannot read model file .*Lambda", KEPT),
    (teacher_that_is_no_keras_file, "Cannot read model file .*teacher.h5", NONE),
    (bad_value_in_a_flagfile, "bad.flags: .*epochs", NONE),
    (binary_flagfile, "Flagfile .*bad.flags' is not text", NONE),
    (run_record_removed_and_teacher_swapped, "run.json is damaged: .*teacher", KEPT),
    (other_flags, r"other flags: --epochs \(was 3, now 4\); --lr", KEPT),
]


def content_of(folder):
    """All files but the lock, and their bytes."""
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.run
@pytest.mark.filterwarnings("ignore:Checkpoint")
@pytest.mark.parametrize(
    ("fault", "message", "state"),
    FAULTS,
    ids=lambda cell: getattr(cell, "__name__", ""),
)
def test_a_fault_gets_one_line_and_leaves_the_state(
    world, monkeypatch, fault, message, state
):
    changes = fault(world, monkeypatch) or {}
    if state == NONE:
        changes["run_dir"] = str(world.path / "new")
    config = dataclasses.replace(world.config, **changes)
    before = content_of(pathlib.Path(config.run_dir))
    with pytest.raises(UserError, match=message) as caught:
        experiment.run(config)
    assert str(caught.value).isprintable()
    after = content_of(pathlib.Path(config.run_dir))
    if state == KEPT:
        assert after == before
    else:
        assert set(after) <= {"flags.txt", "run.json"}


# ---- the same through the command, in a process of its own


def command(config, *at, **options):
    """Runs the command that trains; `at` are arguments of `tests.signal_at`."""
    flagfile = pathlib.Path(config.run_dir).with_suffix(".flags")
    flagfile.write_text(to_flagfile(config))
    module = ["tests.signal_at", *at] if at else []
    arguments = [*module, "tf_mskd.train", f"--flagfile={flagfile}"]
    return Command(*arguments, **options).finish()


def error_of(done):
    """The one line that a refused command says."""
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    return line


@pytest.mark.run
def test_a_disk_that_fills_up_stops_the_run_which_then_goes_on(world):
    before = {path: path.read_bytes() for path in world.checkpoints}
    half = min(map(len, before.values())) // 2
    line = error_of(command(world.config, max_file_size=half))
    assert "Cannot write" in line and "File too large" in line
    assert {path: path.read_bytes() for path in world.checkpoints} == before
    assert not temporary_files(world.run)
    assert command(world.config).returncode == 0
    assert len(read_runs([world.run])["run"].history) == 3


@pytest.mark.run
def test_a_second_process_is_refused_and_a_dead_owner_is_not(world):
    with RunFolder(world.config):
        line = error_of(command(world.config))
        assert f"in use by host {os.uname().nodename}, pid {os.getpid()}" in line
        with pytest.raises(UserError, match=f"in use by .*, pid {os.getpid()}"):
            with RunFolder(world.config):
                pass
    assert (world.run / "lock").exists()  # its owner is gone
    with RunFolder(world.config):
        pass


@pytest.mark.parametrize("number", stopping.EXIT_CODES)
def test_a_signal_whose_exception_is_lost_stops_the_training(number, capfd):
    class Dropping:
        def __del__(self):
            os.kill(os.getpid(), number)

    with stopping.signals_stop():
        Dropping()
        with stopping.StopRequest().listening() as request:
            assert request.signal == number
    assert not capfd.readouterr().err
    with stopping.signals_stop(), stopping.StopRequest().listening() as request:
        assert request.signal is None


@pytest.mark.run
def test_sigterm_while_the_data_are_read_has_its_code_and_line(world):
    moment = "call tf_mskd.data.tfds_sets:check_known 1"
    done = command(world.config, "SIGTERM", moment)
    assert done.returncode == 143, done
    assert "Run the same command to resume" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


# ---- hostile files: at worst they are refused

HOSTILE_FLAGFILES = [  # content of a.flags, and of b.flags beside it
    (b"--flagfile=a.flags\n", b"", "'a.flags' includes itself"),
    (b"--flagfile=b.flags\n", b"--flagfile=a.flags\n", "'a.flags' includes itself"),
    (b"--flagfile=b.flags\n" * 101, b"", "includes more than 100 others"),
    (b"--flagfile=nowhere.flags\n", b"", "No flagfile 'nowhere.flags'"),
    (b"--flagfile=.\n", b"", "No flagfile '.'"),
    (b"#" * (2**20 + 1), b"", "longer than 1048576 bytes"),
    (b"\x7fELF\xff", b"", "is not text"),
    (b"--dataset=a\0b\n", b"", "Line 1 of .* control character"),
    (b"--lr=1\n--dataset=\x1b]0;x\x07\n", b"", "Line 2 of .* control character"),
    (b"--import=os", b"", "a.flags: Unknown flag '--import'"),
    (b"rm -rf", b"", "Line 1 of flagfile 'a.flags' is no flag: .*'rm -rf'"),
]


@pytest.mark.parametrize(("first", "second", "message"), HOSTILE_FLAGFILES)
def test_a_hostile_flagfile_is_refused(tmp_path, monkeypatch, first, second, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.flags").write_bytes(first)
    (tmp_path / "b.flags").write_bytes(second)
    with pytest.raises(UserError, match=message) as caught:
        read_flagfile("a.flags")
    assert str(caught.value).isprintable()


@pytest.mark.run
def test_a_hostile_flagfile_is_refused_by_the_command(tmp_path):
    (tmp_path / "a.flags").write_bytes(b"\x80\x04K\x01.")
    done = subprocess.run(
        [sys.executable, "-m", "tf_mskd.train", "--flagfile", "a.flags"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=240,
    )
    assert error_of(done) == (
        "error: Flagfile 'a.flags' is not text in UTF-8: save it in UTF-8."
    )


@pytest.mark.run
def test_a_setting_that_would_smuggle_in_a_flag_is_refused(tmp_path):
    config = dataclasses.replace(TINY, run_dir=str(tmp_path), data_dir="x\n--lr=5")
    with pytest.raises(UserError, match="--data_dir must be one line of plain text"):
        experiment.run(config)


NAMES = [
    "-rf",
    os.fsdecode(b"\xff"),
    "a\nb",
    "\x1b[31mred",
    "<b>&amp;",
    "x" * 250,
    "a b",
    "$(id)",
]


def test_hostile_class_names_are_only_names(tmp_path):
    picture = Image.new("RGB", (4, 4))
    for split in ("train", "test"):
        for name in [*NAMES, "plain"]:
            (tmp_path / split / name).mkdir(parents=True)
            picture.save(tmp_path / split / name / "0.png")
        (tmp_path / split / "..hidden").mkdir()
    assert load_source("folder", tmp_path).class_names == tuple(
        sorted([*NAMES, "plain"])
    )
    for name in NAMES:
        (tmp_path / "train" / name / "0.png").write_bytes(b"no image")
        with pytest.raises(UserError, match="Cannot read image") as caught:
            load_source("folder", tmp_path)
        assert str(caught.value).isprintable()
        shutil.rmtree(tmp_path / "train" / name)
        with pytest.raises(UserError, match="must agree") as caught:
            load_source("folder", tmp_path)
        assert str(caught.value).isprintable()
        shutil.rmtree(tmp_path / "test" / name)


HOSTILE_TEXTS = ["", "{", "[1]\n", "[" * 100_000, "\x00", "{}", "1" * 10_000, "null"]


@pytest.mark.run
@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_hostile_records_are_refused(world, text):
    for name in ("metrics.jsonl", "result.json"):
        copy = world.path / name.partition(".")[0]
        shutil.copytree(world.config.teacher, copy)
        (copy / name).write_text(text)
        with pytest.raises(UserError, match=name) as caught:
            read_runs([copy])
        assert str(caught.value).isprintable()
    (world.run / "run.json").write_text(text)
    with RunFolder(world.config) as folder:
        if text == "{}":
            return  # a record without fingerprints: the next teacher is the first
        with pytest.raises(UserError, match="run.json"):
            folder.check_fingerprint("teacher", "t.keras", "a" * 64)


CHANGES = [
    {"test": 5},
    {"test": {"exit_1": "<script>"}},
    {"test": {"exit_1": 97.5}},
    {"test": {"\x1b]0;x\x07": 1.0}},
    {"macs": {}},
    {"params": [1]},
    {"fitted_weights": {"exit_1": {}}},
]


@pytest.mark.run
@pytest.mark.parametrize("change", CHANGES)
def test_a_hostile_result_is_refused(world, change):
    path = world.path / "teacher" / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, **change}))
    with pytest.raises(UserError, match="result.json is damaged: .*Remove it"):
        read_result(path)


def test_a_record_that_is_no_file_is_refused(tmp_path):
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("folder.json", "pipe.json", "nowhere.json"):
        with pytest.raises(UserError, match=f"{name} is missing or no file"):
            files.read_json(tmp_path / name)


@pytest.mark.run
def test_a_hostile_lock_is_refused_and_followed_nowhere(world):
    lock, other = world.run / "lock", world.path / "precious"
    other.write_text("text")
    lock.unlink()
    lock.symlink_to(other)
    with pytest.raises(UserError, match="Cannot lock .*lock: Too many levels"):
        RunFolder(world.config).__enter__()
    assert other.read_text() == "text"
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(UserError, match="Cannot lock .*lock: it is no regular file"):
        RunFolder(world.config).__enter__()
    lock.unlink()
    lock.mkdir()
    with pytest.raises(UserError, match="Cannot lock .*lock: Is a directory"):
        RunFolder(world.config).__enter__()
    lock.rmdir()
    with RunFolder(world.config):
        lock.write_bytes(b"host a, pid 1\n\x1b[31m\xff")
        with pytest.raises(UserError, match="in use by another process: wait"):
            RunFolder(world.config).__enter__()


@pytest.mark.run
def test_a_kill_between_the_first_files_of_a_run_is_mended(world):
    (world.run / "run.json").unlink()
    (world.run / ".flags.123.txt").write_text("half")
    (world.run / "checkpoints" / ".checkpoint_0000000009.123.npz").write_text("half")
    with RunFolder(world.config) as folder:
        folder.check_fingerprint("teacher", "t.keras", "a" * 64)
    assert "versions" in files.read_json(world.run / "run.json")
    assert not temporary_files(world.run)


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    files.write_json(path, {"a": 1})
    for name, kept in (("file", " The previous file is unchanged."), ("new", "")):
        message = (
            rf"Cannot write .*{name}.json: No space left on device\.{kept} Fix the"
        )
        with pytest.raises(UserError, match=message):
            with files.replacing(tmp_path / f"{name}.json") as temporary:
                temporary.write_text("half")
                raise OSError(28, "No space left on device")
    assert files.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]
