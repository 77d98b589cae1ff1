"""Commands: help and every refusal before TensorFlow starts, in one line."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import tf_mskd
from tests.support import TINY
from tf_mskd.models import mobilenet, resnet, unet, vgg
from tf_mskd.models.aux_heads import KINDS
from tf_mskd.models.heads import HEADS
from tf_mskd.runs import inputs
from tf_mskd.runs.config import Config
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.utils import choices
from tf_mskd.utils.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
RUN = ["--run_dir={folder}/run"]
COMMANDS = {  # -> a bad value, its message; a folder that is missing, its message
    "train": (
        ["--exit_head=dnse"],
        "--exit_head must be one of .*, got 'dnse'; did you mean 'dense'",
        [*RUN, "--teacher={folder}/no"],
        "No model file at '.*/no'",
    ),
    "cache": (
        ["--lr_drops=1,x"],
        "--lr_drops must be numbers such as 1,2,3, got '1,x'",
        ["--teacher_cache={folder}/c", "--dataset=folder", "--data_dir={folder}/no"],
        "No folder '.*/no' for data set 'folder'",
    ),
    "tune": (
        ["--trials=0"],
        r"--trials must be an integer in \[1, .*, got '0'",
        ["--tune_dir={folder}/t", "--space=lr=0.1|1", "--flagfile={folder}/no.flags"],
        "No flagfile '.*/no.flags'",
    ),
    "evaluate": (
        ["--which=bst"],
        "--which must be one of last, best, got 'bst'; did you mean 'best'",
        ["--run_dir={folder}/no"],
        "--run_dir='.*/no' holds no finished run",
    ),
    "calibrate": (
        ["--max_accuracy_drop=little"],
        "--max_accuracy_drop must be a number.*, got 'little'",
        ["--run_dir={folder}/no"],
        "--run_dir='.*/no' holds no finished run",
    ),
    "explain": (
        ["--which=bst"],
        "--which must be one of last, best, got 'bst'; did you mean 'best'",
        ["--run_dir={folder}/no"],
        "--run_dir='.*/no' holds no finished run",
    ),
    "export": (
        ["--overwrite=perhaps"],
        "--overwrite must be true or false, got 'perhaps'",
        ["--run_dir={folder}/no", "--output={folder}/e"],
        "--run_dir='.*/no' holds no finished run",
    ),
    "report": (
        ["--outptu=x"],
        "Unknown flag '--outptu'; did you mean '--output'",
        ["--run_dirs={folder}/no"],
        "'.*/no' holds no finished run",
    ),
    "data.prepare": (
        ["--datset=x"],
        "Unknown flag '--datset'; did you mean '--dataset'",
        ["--dataset=digits", "--data_dir={folder}/no"],
        "Data set 'digits' needs no preparation",
    ),
}
NAMED = {  # what is refused by name before any package that knows the names is imported
    "--model=resnet11": "Unknown model 'resnet11'; did you mean 'resnet1",
    "--model=keras:VGG16?weights=imagenet": "would download weights: save them to a f",
    "--model=no/such.keras": "No model file at 'no/such.keras', which --mo",
    "--optimizer=admaw": "--optimizer must be|adamw",
    "--method=kd,mksd": "Unknown method 'mksd'; did you mean 'mskd'",
    "--augment=crop,flipp": "Unknown --augment 'flipp'; did you mean 'flip'",
    "--flagfile=configs/digits/mksd.flags": "did you mean 'mskd.flags'",
    "--lr=nan": "--lr must be .*in \\[0, .*nan",
    "train": "Expected flags only, got 'train'",
    "--lr": "--lr needs a value: write --lr=VALUE",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """(command, arguments) -> what it did; "absl" -> what an empty command does."""
    folder = tmp_path_factory.mktemp("commands")
    cases = []
    for name, (bad, _, missing, _) in COMMANDS.items():
        for arguments in (["--help"], ["--nosuchflag"], bad, missing):
            cases.append((name, *(a.format(folder=folder) for a in arguments)))
    cases += [("train", *RUN, argument) for argument in NAMED]
    cases += [("train", "--dry_run", "--flagfile=configs/digits/mskd.flags", *RUN)]
    commands = [[f"tf_mskd.{name}", *arguments] for name, *arguments in cases]
    commands += [["tf_mskd", "trian"], ["tf_mskd", "--help"]]
    commands += [["tf_mskd", "train", "--lr=x"]]
    cases += [("", *command[1:]) for command in commands[len(cases) :]]
    python = [sys.executable, str(ROOT / "tests" / "commands.py"), json.dumps(commands)]
    done = subprocess.run(python, cwd=ROOT, capture_output=True, text=True, check=True)
    absl, *found = json.loads(done.stdout)
    return {"absl": absl, **dict(zip(cases, found, strict=True))}


def error_of(result, code):
    """The one line of a refused command."""
    assert result["code"] == code and result["out"] == "", result
    (line,) = result["err"].splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.mark.run
def test_no_refusal_starts_tensorflow_or_takes_long(results):
    """Against absl alone in the same process; TensorFlow takes fifty times that."""
    limit = 20 * results["absl"]["cpu"]
    for case, result in results.items():
        assert result["imported"] == [], case
        assert result["cpu"] < limit, (case, result["cpu"], limit)


@pytest.mark.run
def test_help_groups_the_flags(results):
    for group in ("run", "data", "model", "method", "teacher", "training"):
        assert f"{group} flags:" in results["train", "--help"]["out"]


@pytest.mark.run
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_in_one_line(results, name):
    bad, bad_message, missing, missing_message = COMMANDS[name]
    of_name = {case[1:]: result for case, result in results.items() if case[0] == name}
    shown = of_name["--help",]
    assert shown["code"] == 0 and shown["err"] == ""
    for hidden in ("--undefok", "fresh_teacher", "cache_views"):
        assert hidden not in shown["out"]
    line = error_of(of_name["--nosuchflag",], 1)
    assert line == "Unknown flag '--nosuchflag'. --help lists the flags."
    assert re.search(bad_message, error_of(of_name[tuple(bad)], 1))
    (key,) = [case for case in of_name if any("/no" in argument for argument in case)]
    assert re.search(missing_message, error_of(of_name[key], 2))


@pytest.mark.run
def test_a_normal_run_prints_nothing_on_stderr(tmp_path):
    """TensorFlow's own lines too: the level that the tests set is taken away."""
    flagfile, run_dir = tmp_path / "run.flags", f"--run_dir={tmp_path / 'run'}"
    flagfile.write_text(to_flagfile(dataclasses.replace(TINY, epochs=1, exits="last")))
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    for command in (
        ["train", f"--flagfile={flagfile}", run_dir],
        ["evaluate", run_dir],
    ):
        python = [sys.executable, "-m", "tf_mskd", *command]
        done = subprocess.run(
            python, cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        assert "exit_4" in done.stdout


@pytest.mark.run
@pytest.mark.parametrize("argument", NAMED)
def test_names_are_refused_with_the_nearest_one(results, argument):
    result = results["train", *RUN, argument]
    assert re.search(NAMED[argument], error_of(result, result["code"]))


@pytest.mark.run
def test_a_dry_run_prints_the_chain_and_trains_nothing(results):
    case = ("train", "--dry_run", "--flagfile=configs/digits/mskd.flags", *RUN)
    result = results[case]
    assert result["code"] == 0 and result["err"] == ""
    rows = [
        [cell.strip() for cell in row.split("|")] for row in result["out"].splitlines()
    ]
    teacher = ["{folder}/teacher", "train", "ce", "20", "digits", "", ""]
    assert rows[2][1:-1] == teacher
    assert rows[3][1:-1] == [
        "{folder}/run",
        "train",
        "mskd",
        "20",
        "digits",
        teacher[0],
        "",
    ]
    assert not (ROOT / "{folder}").exists()


@pytest.mark.run
def test_one_name_runs_every_command(results):
    assert "did you mean 'train'? Known: prepare, train" in error_of(
        results["", "trian"], 1
    )
    assert "--lr must be a number" in error_of(results["", "train", "--lr=x"], 1)
    listed = results["", "--help"]["out"]
    assert all(f"  {name.removeprefix('data.')} " in listed for name in COMMANDS)


def test_the_choices_are_those_of_the_modules_that_define_them():
    assert tuple(HEADS) == choices.EXIT_HEADS and tuple(KINDS) == choices.AUX_HEADS
    named = [
        name for name in choices.MODELS if not re.fullmatch(choices.WIDE_RESNET, name)
    ]
    assert named == [*resnet.BLOCKS, *vgg.DEPTHS, *mobilenet.NAMES, unet.NAME]
    assert tf_mskd.available_models() == list(choices.MODELS)


def test_every_method_and_network_passes_the_names_check():
    from tf_mskd.methods.common.registry import available_methods

    for method in [*available_methods(), "kd,at"]:
        inputs.check_names(Config(method=method, model="wrn_22_3"))
    with pytest.raises(UserError, match="Unknown model 'wrn_x'"):
        inputs.check_names(Config(model="wrn_x"))


@pytest.mark.run
def test_the_root_is_lazy_and_shows_its_names():
    """A bare interpreter imports the package, lists it, then reads a name of it."""
    code = (
        "import sys, tf_mskd; names = dir(tf_mskd); "
        "assert {'Distiller', 'create_model', 'callbacks'} <= set(names); "
        "assert set(tf_mskd.__all__) <= set(names); "
        "import tf_mskd.runs.cli, tf_mskd.data; "
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    scope = {}
    exec("from tf_mskd import *", scope)
    assert set(tf_mskd.__all__) <= set(scope)
    with pytest.raises(AttributeError, match="no attribute 'Distiler'"):
        tf_mskd.Distiler  # noqa: B018
