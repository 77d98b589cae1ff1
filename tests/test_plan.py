"""The plan of a command: which runs, in which order, and what each needs."""

import dataclasses
import pathlib

import pytest

from tf_mskd.runs.config import Config
from tf_mskd.runs.flags import read_flagfile, to_flagfile
from tf_mskd.runs.plan import HANDED_DOWN, describe, plan, plan_cache
from tf_mskd.utils.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def files(tmp_path):
    """Writes flagfiles; a run's folder lies beside the others, named as its file."""

    def write(**configs):
        for name, config in configs.items():
            (tmp_path / f"{name}.flags").write_text(to_flagfile(config))
        return tmp_path

    return write


def links(folder, **roles):
    return {
        f"{role}_flagfile": str(folder / f"{name}.flags")
        for role, name in roles.items()
    }


def summary(runs):
    return [(run.role, run.name, run.status) for run in runs]


def finish(folder, config):
    folder.mkdir(parents=True)
    (folder / "flags.txt").write_text(to_flagfile(config))
    (folder / "result.json").write_text("{}")


def test_the_chain_of_the_digits_is_teacher_init_and_student():
    config = read_flagfile(ROOT / "configs/digits/oto.flags", run_dir="runs/x/oto")
    runs = plan(config)
    assert [run.name for run in runs] == ["teacher", "teacher_exits", "oto"]
    assert [run.role for run in runs] == ["init", "teacher", "own"]
    assert [run.needs for run in runs] == [
        (),
        (str(pathlib.Path("runs/x/teacher")),),
        (str(pathlib.Path("runs/x/teacher_exits")),),
    ]
    assert runs[-1].config == config and {run.status for run in runs} == {"new"}


def test_each_run_comes_after_those_that_it_needs_and_once(tmp_path, files):
    a = Config(seed=1)
    files(a=a)
    b = Config(seed=2, **links(tmp_path, teacher="a"))
    files(b=b)
    own = Config(
        **links(tmp_path, teacher="b", init="a"), run_dir=str(tmp_path / "own")
    )
    runs = plan(own)
    assert summary(runs) == [
        ("teacher", "a", "new"),
        ("teacher", "b", "new"),
        ("own", "own", "new"),
    ]
    assert runs[-1].teacher == str(tmp_path / "b") and runs[-1].init == str(
        tmp_path / "a"
    )


def test_a_finished_run_needs_nothing_any_more(tmp_path, files):
    a, b = Config(seed=1), Config(seed=2, **links(tmp_path, teacher="a"))
    files(b=b)  # a.flags is gone
    own = Config(**links(tmp_path, teacher="b"), run_dir=str(tmp_path / "own"))
    with pytest.raises(UserError, match="No flagfile .*a.flags"):
        plan(own)
    finish(tmp_path / "b", dataclasses.replace(b, run_dir=str(tmp_path / "b")))
    runs = plan(own)
    assert summary(runs) == [("teacher", "b", "finished"), ("own", "own", "new")]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "flags.txt").write_text(to_flagfile(own))
    assert plan(own)[-1].status == "unfinished"
    assert " reuse " in describe(runs) and " resume " in describe(plan(own))
    assert a != b


def test_settings_are_handed_down_and_folders_are_named(tmp_path, files):
    files(a=Config(seed=1, strategy="one_device"))
    changes = {"data_dir": "", "strategy": "mirrored", "num_devices": 2}
    changes |= {"tensorboard": False, "checkpoint_minutes": 1.0, "checkpoint_steps": 7}
    assert set(changes) == set(HANDED_DOWN)
    own = Config(
        **links(tmp_path, teacher="a"), run_dir=str(tmp_path / "own"), **changes
    )
    (first, _) = plan(own)
    assert {name: getattr(first.config, name) for name in changes} == changes
    assert first.config.seed == 1 and first.run_dir == str(tmp_path / "a")
    own = dataclasses.replace(own, teacher_run_dir=str(tmp_path / "named"))
    assert plan(own)[0].name == "named"


def test_an_untrained_teacher_is_no_run(tmp_path, files):
    files(a=Config(seed=1))
    own = Config(
        **links(tmp_path, teacher="a"),
        untrained_teacher=True,
        run_dir=str(tmp_path / "o"),
    )
    runs = plan(own)
    assert len(runs) == 1 and runs[0].teacher == ""
    assert "a.flags (untrained)" in describe(runs)


def test_a_cache_needs_the_chain_of_the_teacher_alone(tmp_path, files):
    files(a=Config(seed=1), b=Config(seed=2))
    own = Config(**links(tmp_path, teacher="a", init="b"), teacher_cache="c")
    own = dataclasses.replace(own, run_dir=str(tmp_path / "own"))
    assert summary(plan_cache(own)) == [("teacher", "a", "new")]
    teacher = tmp_path / "t.keras"
    teacher.write_bytes(b"")
    assert plan_cache(Config(teacher=str(teacher), teacher_cache="c")) == []


def test_what_a_plan_refuses(tmp_path, files):
    run_dir = str(tmp_path / "own")
    with pytest.raises(UserError, match="--run_dir is empty: name the folder"):
        plan(Config())
    with pytest.raises(UserError, match="--teacher_cache is empty: name the folder"):
        plan_cache(Config(run_dir=run_dir))
    with pytest.raises(UserError, match="No model file at 'nowhere'"):
        plan(Config(run_dir=run_dir, teacher="nowhere"))
    with pytest.raises(UserError, match="No folder 'nowhere' for data set 'folder'"):
        plan(Config(run_dir=run_dir, dataset="folder", data_dir="nowhere"))

    files(a=Config(**links(tmp_path, teacher="a")))
    with pytest.raises(UserError, match="needs itself first.*leads back"):
        plan(Config(run_dir=run_dir, **links(tmp_path, teacher="a")))

    files(b=Config(seed=1), c=Config(seed=2))
    same = {"teacher_run_dir": str(tmp_path / "x"), "init_run_dir": str(tmp_path / "x")}
    own = Config(run_dir=run_dir, **links(tmp_path, teacher="b", init="c"), **same)
    with pytest.raises(UserError, match="Two runs with other settings would use .*x'"):
        plan(own)

    finish(tmp_path / "b", Config(seed=3, run_dir=str(tmp_path / "b")))
    with pytest.raises(
        UserError, match=r"b holds a run with other flags: --seed \(was 3"
    ):
        plan(Config(run_dir=run_dir, **links(tmp_path, teacher="b")))
