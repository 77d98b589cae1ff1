"""Stages: the run that a teacher or a student needs first, composed of flagfiles."""

import pathlib
import shutil

import pytest

from tf_mskd.runs.config import Config
from tf_mskd.runs.flags import read_flags
from tf_mskd.runs.plan import plan
from tf_mskd.runs.stages import required_config
from tf_mskd.utils.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
PAIR = "configs/digits/pair.flags"
SHORT = "configs/pairs/cifar100_small_vgg13_vgg8.flags"
VGG = "configs/pairs/cifar100_vgg13_vgg8.flags"
DEEP = "configs/pairs/cifar100_resnet152_resnet10.flags"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def read(pair, method, *more, **changes):
    """The configuration of a pair and a method."""
    flags = [f"--flagfile={pair}", f"--flagfile=configs/methods/{method}.flags"]
    return read_flags([*flags, *more], **changes)


def runs_of(config):
    """The names of the folders of a plan's runs, in order."""
    return [run.name for run in plan(config)]


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("kd", ["teacher", "own"]),
        ("ft", ["teacher", "teacher_paraphraser", "own"]),
        ("hsakd", ["teacher", "teacher_rotation", "own"]),
        ("oto", ["teacher", "teacher_exits", "own"]),
        ("atf", ["student", "teacher", "teacher_atf", "own"]),
        ("purf_kd", ["teacher_purf", "own"]),
        ("ab_two_stage", ["teacher", "pair_ab_init", "own"]),
        ("fitnet_two_stage", ["teacher", "pair_fitnet_init", "own"]),
        ("dml", ["own"]),
    ],
)
def test_a_method_brings_its_stages(method, names, tmp_path):
    assert runs_of(read(PAIR, method, run_dir=str(tmp_path / "own"))) == names


def test_an_assistant_stands_between_teacher_and_student(tmp_path):
    runs = plan(read(SHORT, "takd", run_dir=str(tmp_path / "own")))
    assert [run.config.model for run in runs] == ["vgg13", "vgg11", "vgg8"]
    assert [run.config.method for run in runs] == ["ce", "kd", "kd"]
    assert [run.teacher for run in runs[1:]] == [run.run_dir for run in runs[:-1]]


def test_a_stage_is_added_to_the_teachers_flagfile():
    teacher = required_config(read(VGG, "ft"), "teacher")
    plain = read_flags(["--flagfile=configs/cifar100/vgg13.flags"])
    assert teacher.init_flagfile == "configs/cifar100/vgg13.flags"
    assert (teacher.method, teacher.freeze) == ("paraphraser", "backbone")
    assert (teacher.epochs, teacher.lr) == (30, 0.01)
    assert (teacher.model, teacher.batch_size) == (plain.model, plain.batch_size)


def test_a_first_stage_is_added_to_the_pair_and_not_to_the_run():
    student = read(VGG, "ab_two_stage", "--lr=7", "--width=0.5")
    first = required_config(student, "init")
    assert student.teacher_flagfile == ""
    assert (first.method, first.epochs) == ("ab", 30)
    assert first.teacher_flagfile == "configs/cifar100/vgg13.flags"
    assert (first.lr, first.width) == (0.05, 1.0)


def test_a_folder_of_stages_replaces_the_common_ones():
    heads = [required_config(read(p, "oto"), "teacher") for p in (VGG, DEEP, SHORT)]
    assert [c.exit_head for c in heads] == ["dense", "separable", "dense"]
    assert [c.epochs for c in heads] == [100, 100, 6]
    ft = required_config(read(DEEP, "ft"), "teacher")  # not in configs/stages/separable
    assert (ft.exit_head, ft.epochs) == ("dense", 30)


def test_the_teacher_of_a_stage_may_have_another_folder(tmp_path):
    folder, own = str(tmp_path / "heads"), str(tmp_path / "own")
    config = read(PAIR, "oto", run_dir=own, teacher_run_dir=folder)
    assert runs_of(config) == ["teacher", "heads", "own"]


def test_stages_are_found_from_any_folder(tmp_path, monkeypatch):
    here = read(PAIR, "ft")
    monkeypatch.chdir(tmp_path)
    there = read(ROOT / PAIR, "ft")
    stages = [required_config(c, "teacher") for c in (here, there)]
    assert stages[0].epochs == stages[1].epochs == 10


def test_a_stage_of_ones_own(tmp_path):
    shutil.copy("configs/stages/exits.flags", tmp_path / "mine.flags")
    changes = {"teacher_stage": "mine", "stage_dir": str(tmp_path)}
    teacher = required_config(read(PAIR, "kd", **changes), "teacher")
    assert (teacher.exits, teacher.epochs) == ("all", 100)


@pytest.mark.parametrize("role", ["teacher", "init"])
def test_an_unknown_stage_is_refused(role):
    changes = {f"{role}_stage": "paraphrase"}
    message = (
        r"No stage 'paraphrase' in configs/stages/digits or configs/stages; did you "
        r"mean 'paraphraser'\? Write configs/stages/digits/paraphrase.flags, or use "
        r"one of ab, atf, exits, .*rotation\."
    )
    with pytest.raises(UserError, match=message):
        required_config(read(PAIR, "kd", **changes), role)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"teacher_stage": "exits"}, "--teacher_stage=exits needs --teacher_flagfile"),
        (
            {"teacher_stage": "exits", "teacher_flagfile": "a", "untrained_teacher": 1},
            "--teacher_stage=exits trains the teacher first, --untrained_teacher",
        ),
        ({"init_stage": "ab"}, "--init_stage=ab needs --pair_flagfile"),
        (
            {"init_stage": "ab", "pair_flagfile": "a", "init_flagfile": "b"},
            "--init_stage=ab and --init_flagfile=b both",
        ),
    ],
)
def test_contradictions_of_stages_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Config(**values)


# ---- windows of image files, which a method's own augmentation leaves out

FILES = "configs/pairs/imagenet2012_resnet34_resnet18.flags"
WINDOWS = {  # method -> the flag that puts them into its augmentation
    "ccd": "--second_augment=source_crop,jda,flip",
    "oto_star": "--augment=source_crop,flip,autoaugment",
    "sskd": "--augment=source_crop,flip",
    "sskd_teacher": "--augment=source_crop,flip",
}


@pytest.mark.parametrize("method", WINDOWS)
def test_an_augmentation_without_windows_is_refused_with_what_to_set(method):
    with pytest.raises(UserError, match=rf"{WINDOWS[method]}(\.|, or drop the flag)"):
        read(FILES, method)


@pytest.mark.parametrize("method", WINDOWS)
def test_every_run_of_the_chain_then_cuts_windows(method, tmp_path):
    runs = plan(read(FILES, method, WINDOWS[method], run_dir=str(tmp_path / "own")))
    for config in (run.config for run in runs):
        assert config.augment[0] == "source_crop"
        assert config.crop_scale == (0.08, 1.0)
    stages = {"oto_star": "resnet34_exits", "sskd": "resnet34_projection"}
    if method in stages:
        assert runs[1].name == stages[method]
        assert runs[1].config.augment == ("source_crop", "flip")


def test_a_stage_keeps_its_own_augmentation_without_windows_before_it():
    assert required_config(read(VGG, "sskd"), "teacher").augment == ("flip",)


def test_where_nothing_is_cut_from_files_the_line_names_none():
    with pytest.raises(UserError, match="--augment=crop,flip and .* lack: list it, or"):
        Config(dataset="digits", crop_scale="0.1,1")


def test_a_first_view_without_windows_is_told_what_to_set():
    settings = {"dataset": "folder", "second_augment": "source_crop,jda,flip"}
    with pytest.raises(UserError, match="jda,flip: set --augment=source_crop,flip[.]"):
        Config(**settings)
