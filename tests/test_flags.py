"""Settings as text and as values, flagfiles and where they are found."""

import ast
import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from absl import flags as absl_flags

from tf_mskd.runs import flagfiles, parsers
from tf_mskd.runs.config import Config, differing
from tf_mskd.runs.flags import (
    FORMER_NAMES,
    config_from,
    define,
    find_flagfile,
    read_flagfile,
    share_booleans,
    to_flagfile,
)
from tf_mskd.runs.settings import read_setting, text_of
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.flag_errors import listed

ROOT = pathlib.Path(__file__).parents[1]
VALUES = [  # setting, text, value
    ("lr_drops", "150,180", (150, 180)),
    ("lr_drops", "", ()),
    ("phase_epochs", "1,2", (1, 2)),
    ("vgg_taps", "2,3,4,5", (2, 3, 4, 5)),
    ("exits", "all", "all"),
    ("exits", "last", "last"),
    ("exits", "1,4", (1, 4)),
    ("term_weights", "ce:0.1,kd:0.9", {"ce": 0.1, "kd": 0.9}),
    ("exit_weights", "", {}),
    ("exit_map", "1:2,2:3", {1: 2, 2: 3}),
    ("augment", "crop, flip", ("crop", "flip")),
    ("augment", "none", ("none",)),
    ("second_augment", "", ()),
    ("crop_scale", "0.08,1", (0.08, 1.0)),
    ("crop_ratio", "0.75,1.3333333333333333", (3 / 4, 4 / 3)),
    (
        "method_args",
        "preset=hsakd,temperature=3",
        {"preset": "hsakd", "temperature": "3"},
    ),
    ("method_args", "exit_map=1:2,2:3,temperature=3", None),
    ("lr", "1e-3", 0.001),
    ("epochs", "7", 7),
    ("nesterov", "True", True),
]
FIELDS = {field.name: field for field in dataclasses.fields(Config)}


@pytest.mark.parametrize(("name", "text", "value"), VALUES)
def test_a_setting_reads_as_its_value_and_is_written_back(name, text, value):
    read = read_setting(FIELDS[name], text)
    if value is not None:
        assert read == value and type(read) is type(value)
    assert read_setting(FIELDS[name], text_of(FIELDS[name], read)) == read


def test_python_gives_a_config_values_or_their_text():
    text = Config(
        exits="1,2",
        lr_drops="3,4",
        term_weights="ce:1",
        exit_map="1:2",
        augment="crop",
        method_args="temperature=3",
        vgg_taps="2,3,4,5",
    )
    values = Config(
        exits=[1, 2],
        lr_drops=(3, 4),
        term_weights={"ce": 1},
        exit_map={1: 2},
        augment=["crop"],
        method_args={"temperature": 3},
        vgg_taps=range(2, 6),
    )
    assert text == values
    assert values.exits == (1, 2) and values.term_weights == {"ce": 1.0}


WRONG = [
    ({"lr_drops": 3}, "--lr_drops takes a tuple.*, or its text, got 3"),
    ({"lr_drops": ["x"]}, "--lr_drops must be numbers such as 1,2,3, got 'x'"),
    ({"term_weights": "ce"}, "--term_weights must be pairs such as ce:0.1"),
    ({"exit_map": "1:x"}, "--exit_map must be pairs student:teacher .*, got '1:x'"),
    ({"method_args": "3"}, "--method_args must be name=value pairs, got '3'"),
    ({"augment": "crop,flop"}, "Unknown --augment 'flop'; did you mean 'flip'"),
    ({"crop_scale": "1,0.5"}, "--crop_scale must be two numbers .*, got '1,0.5'"),
    ({"crop_ratio": "1"}, "--crop_ratio must be two numbers .*, got '1'"),
    ({"randaugment_magnitude": 30}, r"--randaugment_magnitude must be in \[0, 10\]"),
    ({"erase_fill": "blak"}, "--erase_fill must be one of .*; did you mean 'black'"),
    ({"mixup": -0.1}, r"--mixup must be in \[0, inf\], got -0.1"),
    ({"repeats": 0}, r"--repeats must be in \[1, inf\], got 0"),
    ({"phases": "progresive"}, "did you mean 'progressive'"),
    ({"epochs": 0}, r"--epochs must be in \[1, inf\], got 0"),
    ({"lr": float("nan")}, r"--lr must be in \[0, inf\], got nan"),
    ({"lr": None}, "--lr must be a number, got 'None'"),
    ({"epochs": 1.7}, "--epochs must be an integer, got '1.7'"),
    ({"epochs": True}, "--epochs must be an integer, got 'True'"),
    ({"nesterov": "maybe"}, "--nesterov must be true or false, got 'maybe'"),
    ({"teacher": None}, "--teacher takes text, got None"),
    ({"term_weights": "ce:1,kd:2,ce:3"}, "--term_weights names ce twice"),
    ({"exit_map": "1:2,1:3"}, "--exit_map names 1 twice"),
    ({"method_args": "a=1,b=2,a=3"}, "--method_args names a twice"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_a_wrong_value_is_refused_in_one_line(values, message):
    with pytest.raises(UserError, match=message) as caught:
        Config(**values)
    assert str(caught.value).isprintable()


def test_arguments_are_typed_by_the_defaults_of_the_method():
    defaults = {"temperature": 4.0, "count": 2, "on": False, "weight": None, "name": ""}
    raw = {"temperature": "3", "count": "5", "on": "True", "weight": "1", "name": "a"}
    typed = {"temperature": 3.0, "count": 5, "on": True, "weight": 1.0, "name": "a"}
    assert parsers.typed("method_args", raw, defaults) == typed
    assert parsers.typed("method_args", {"weight": "None"}, defaults) == {
        "weight": None
    }
    for bad in ({"count": "2.5"}, {"on": "maybe"}, {"weight": "x"}):
        with pytest.raises(UserError, match="--method_args: .* takes a value like"):
            parsers.typed("method_args", bad, defaults)


BOOLEANS = {True: "true True t yes YES y on 1", False: "false F no n off Off 0"}


@pytest.mark.parametrize("value", BOOLEANS)
def test_a_boolean_is_read_alike_everywhere(value):
    for text in BOOLEANS[value].split():
        assert config_from(_parsed(f"--nesterov={text}")).nesterov is value
        assert Config(nesterov=text).nesterov is value
        assert parsers.typed("method_args", {"on": text}, {"on": True}) == {"on": value}
        other = absl_flags.FlagValues()
        absl_flags.DEFINE_boolean("subsets", not value, "", flag_values=other)
        share_booleans(other)
        other(["evaluate", f"--subsets={text}"])
        assert other.subsets is value
    for number in (value, int(value), np.bool_(value)):
        assert Config(nesterov=number).nesterov is value


@pytest.mark.parametrize("text", ["maybe", "", "2", "truth", "1.0"])
def test_what_is_no_boolean_is_refused_everywhere(text):
    with pytest.raises(UserError, match="--nesterov must be true or false"):
        Config(nesterov=text)
    with pytest.raises(UserError, match="on takes a value like True"):
        parsers.typed("method_args", {"on": text}, {"on": True})
    with pytest.raises(absl_flags.IllegalFlagValueError):
        _parsed(f"--nesterov={text}")


@pytest.mark.parametrize("text", ["7", "0x10", "1_000", " 3", "1e3", "2.0", "", "x"])
def test_an_integer_is_read_alike_everywhere(text):
    """Flags are absl's; the other readers accept and refuse what they do."""

    def flag():
        return config_from(_parsed(f"--epochs={text}")).epochs

    def argument():
        return parsers.typed("method_args", {"n": text}, {"n": 1})["n"]

    read = []
    for reader in (flag, lambda: Config(epochs=text).epochs, argument):
        try:
            read.append(reader())
        except (UserError, absl_flags.IllegalFlagValueError):
            read.append(None)
    assert len(set(read)) == 1, read
    assert (read[0] is None) == (text in ("1e3", "2.0", "", "x"))


def test_python_gives_scalars_as_text_numbers_or_paths():
    config = Config(lr="0.1", epochs=np.int64(3), l2=0, data_dir=pathlib.Path("a b"))
    assert (config.lr, config.epochs, config.l2) == (0.1, 3, 0.0)
    assert type(config.epochs) is int and config.data_dir == "a b"
    assert Config(method_args={"exit_map": {1: 2, 2: 3}, "t": [1, 2]}).method_args == {
        "exit_map": "1:2,2:3",
        "t": "1,2",
    }


def test_flags_give_the_values_of_their_text_and_a_flagfile_reads_back():
    values = absl_flags.FlagValues()
    define(values)
    arguments = ["--exits=1,2", "--term_weights=ce:1,kd:0.3", "--augment=none"]
    arguments += ["--method_args=exit_map=1:2,2:3", "--nodeterministic", "--lr=0.1"]
    values(["train", *arguments])
    config = config_from(values)
    assert config.exits == (1, 2) and config.augment == ("none",)
    assert config.term_weights == {"ce": 1.0, "kd": 0.3} and not config.deterministic
    assert config.method_args == {"exit_map": "1:2,2:3"}
    assert Config() == config_from(_parsed())


def _parsed(*arguments):
    values = absl_flags.FlagValues()
    define(values)
    values(["train", *arguments])
    return values


def test_a_flagfile_of_any_config_reads_back_as_it(tmp_path):
    config = Config(
        exits=(1, 3),
        term_weights={"ce": 1 / 3},
        exit_map={1: 2},
        phases="progressive",
        phase_epochs=(100, 140),
        method_args={"preset": "hsakd"},
        l2=1e-7,
        deterministic=False,
    )
    (tmp_path / "a.flags").write_text(to_flagfile(config))
    assert read_flagfile(tmp_path / "a.flags") == config


def test_former_flags_work_and_are_not_listed():
    config = config_from(
        _parsed("--cache_views=3", "--fresh_teacher", "--teacher_flagfile=a")
    )
    assert config.cached_augmentations == 3 and config.untrained_teacher
    assert not config_from(_parsed("--nofresh_teacher")).untrained_teacher
    shown = {flag.name for group in listed(_parsed()).values() for flag in group}
    assert shown == set(FIELDS)
    assert not shown & set(FORMER_NAMES) and set(FORMER_NAMES.values()) <= shown


def test_differences_name_the_flags_and_both_texts():
    old, new = Config(epochs=3, exits="1,2"), Config(epochs=4, exits="all")
    assert differing(old, new) == [
        "--exits (was '1,2', now 'all')",
        "--epochs (was 3, now 4)",
    ]
    assert not differing(Config(eval_batch_size=1), Config(eval_batch_size=2))


# ---- where flagfiles are found


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """a/project/configs/digits/run.flags names files below configs/; a/elsewhere."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name, text in {
        "configs/base/b.flags": "--epochs=5\n",
        "configs/digits/teacher.flags": "--flagfile=configs/base/b.flags\n--seed=1\n",
        "configs/digits/run.flags": (
            "# a comment\n\n  --flagfile=configs/base/b.flags  \n"
            "--teacher_flagfile=teacher.flags\n"
        ),
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    monkeypatch.chdir(elsewhere)
    return project


def test_includes_and_teachers_are_found_from_another_directory(tree):
    config = read_flagfile(tree / "configs" / "digits" / "run.flags", run_dir="r")
    assert config.epochs == 5
    teacher = read_flagfile(config.teacher_flagfile)
    assert (teacher.epochs, teacher.seed) == (5, 1)


def test_the_working_directory_comes_first_and_keeps_the_path_as_written(
    tree, monkeypatch
):
    monkeypatch.chdir(tree)
    (tree / "teacher.flags").write_text("--seed=2\n")
    config = read_flagfile("configs/digits/run.flags")
    assert config.teacher_flagfile == "teacher.flags"
    assert read_flagfile(config.teacher_flagfile).seed == 2


def test_flagfiles_of_the_package_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = pathlib.Path(find_flagfile("configs/digits/mskd.flags"))
    assert found.is_absolute() and found.is_file()
    config = read_flagfile("configs/digits/mskd.flags")
    assert config.method == "mskd" and config.epochs == 20
    assert read_flagfile(config.teacher_flagfile).model == "resnet18"
    assert find_flagfile("README.md") == "README.md"  # flagfiles alone come with it


def test_the_same_teacher_by_another_path_is_no_other_run(tree, monkeypatch):
    away = read_flagfile(tree / "configs" / "digits" / "run.flags")
    monkeypatch.chdir(tree / "configs" / "digits")
    here = read_flagfile("run.flags")
    assert here.teacher_flagfile == "teacher.flags" != away.teacher_flagfile
    assert not differing(here, away)
    other = dataclasses.replace(here, teacher_flagfile="run.flags")
    assert len(differing(other, away)) == 1


def test_a_missing_flagfile_is_refused_with_the_nearest_name(tree):
    with pytest.raises(UserError, match="No flagfile .*did you mean 'run.flags'"):
        read_flagfile(tree / "configs" / "digits" / "rnu.flags")


def test_arguments_keep_their_order_and_later_ones_win(tree):
    (tree / "a.flags").write_text("--lr=1\n// another comment\n--lr=2\n")
    path = tree / "a.flags"
    for arguments in ([f"--flagfile={path}"], ["--flagfile", str(path)]):
        expanded = flagfiles.expand(["--lr=0", *arguments, "--lr=3"])
        assert expanded == ["--lr=0", "--lr=1", "--lr=2", "--lr=3"]
    assert flagfiles.expand(["--", f"--flagfile={path}"])[0] == "--"


def test_a_line_that_is_no_flag_is_refused(tree):
    (tree / "a.flags").write_text("--lr=1\nepochs=3\n--lr=2\n")
    with pytest.raises(
        UserError, match="Line 2 of flagfile .* is no flag: .*'epochs=3'"
    ):
        read_flagfile(tree / "a.flags")


# ---- files are UTF-8, whatever the locale

PATHS = [
    "a b",
    "a,b",
    "été",
    "写真/猫",
    "数　据",
    "می‌خواهم",
    "👩‍🔬",
    "a=b",
    "a#b",
    "$x",
    "%s",
]


@pytest.mark.parametrize("name", PATHS)
def test_a_path_in_any_script_reads_back(tmp_path, name):
    config = Config(data_dir=f"/data/{name}", run_dir=name)
    path = tmp_path / name / "a.flags"
    path.parent.mkdir(parents=True)
    files.write_text(path, f"# {name}\n{to_flagfile(config)}")
    assert read_flagfile(path) == config
    assert f"--data_dir=/data/{name}\n".encode() in path.read_bytes()


@pytest.mark.parametrize(
    "text", ["a\nb", "a\x1b[2J", "a\x85b", "a\u2028b", "a ", "\udce9"]
)
def test_what_a_line_cannot_give_back_is_not_written(text):
    with pytest.raises(UserError, match="--data_dir must be one line of plain text"):
        to_flagfile(Config(data_dir=text))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_is_no_part_of_a_flag(tmp_path, end):
    marked = f"--lr=0.1{end}--epochs=3{end}".encode("utf-8-sig")
    (tmp_path / "a.flags").write_bytes(marked)
    (tmp_path / "b.flags").write_bytes(
        marked + marked
    )  # two files, one after the other
    for name in ("a.flags", "b.flags"):
        config = read_flagfile(tmp_path / name)
        assert (config.lr, config.epochs) == (0.1, 3)


def test_a_flagfile_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "a.flags").write_bytes("--data_dir=é\n".encode("utf-16"))
    message = "is not text in UTF-8: save it in UTF-8.$"
    with pytest.raises(UserError, match=message):
        read_flagfile(tmp_path / "a.flags")


def _opens(path):
    """Lines that open a file as text in the encoding of the locale."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        is_open = isinstance(node.func, ast.Name) and name == "open"
        is_method = isinstance(node.func, ast.Attribute)
        if not is_open and not (is_method and name in ("read_text", "write_text")):
            continue
        if ast.unparse(node.func) == "files.write_text":
            continue
        modes = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
        binary = is_open and any("b" in str(mode) for mode in modes)
        if not binary and "encoding" not in {k.arg for k in node.keywords}:
            yield f"{path}:{node.lineno}"


def test_every_text_file_is_opened_with_its_encoding():
    sources = [*ROOT.glob("tf_mskd/**/*.py"), *ROOT.glob("tools/*.py")]
    found = [line for path in sources for line in _opens(path)]
    assert not found


@pytest.mark.run
def test_commands_work_under_any_locale(tmp_path):
    """With a locale that knows ASCII alone, names of any script are read and shown."""
    folder = tmp_path / "写真"
    folder.mkdir()
    (folder / "é.flags").write_bytes("# é\n--data_dir=/é\n".encode("utf-8-sig"))
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    arguments = [f"--flagfile={folder / 'é.flags'}", f"--run_dir={folder / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-m", "tf_mskd.train", *arguments, "--dry_run"],
        env={**os.environ, **plain, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert b"run" in done.stdout
