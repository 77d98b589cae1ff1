"""A study: its runs, what they need first, kills, failures, every mistake."""

import dataclasses
import os
import re
import signal
import sys

import pytest
from absl import flags

from tests.support import OWN, TINY, Command, assert_same_run, wait_for
from tf_mskd.runs import flags as run_flags
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.utils.errors import UserError
from tools import study

FILES = ["configs/digits/student.flags", "configs/digits/oto.flags"]


def test_runs_go_seed_by_seed_with_the_given_flags(tmp_path):
    folder = str(tmp_path)
    jobs = study.jobs_of(FILES, ["0", "7"], folder, ["--epochs=3"])
    assert [job.name for job in jobs] == ["student_0", "oto_0", "student_7", "oto_7"]
    assert [job.config.seed for job in jobs] == [0, 0, 7, 7]
    assert {job.config.epochs for job in jobs} == {3}
    (tmp_path / "logs").mkdir()
    first = study.needed_first(jobs, folder)
    assert [job.name for job in first] == ["teacher", "teacher_exits"]
    assert first[0].config.epochs != 3
    again = run_flags.read_flags(first[0].arguments)
    assert again == first[0].config


@pytest.mark.parametrize(
    ("files", "seeds", "folder", "message"),
    [
        ([], ["0"], "x", "--flagfiles is empty"),
        (FILES, ["0"], "", "--study_dir is empty"),
        (FILES, ["1", "1"], "x", "The --seeds must be different, got 1,1"),
        (FILES, [], "x", "The --seeds must be different, got"),
        (FILES, ["0", "-1"], "x", "whole numbers such as 0,1,2, got '-1'"),
        (FILES[:1] * 2, ["0"], "x", "names of --flagfiles must be different"),
        (["configs/digits/ot.flags"], ["0"], "x", "did you mean .oto.flags"),
    ],
)
def test_mistakes_get_one_line(files, seeds, folder, message):
    with pytest.raises(UserError, match=message):
        study.jobs_of(files, seeds, folder, [])


def test_what_differs_from_run_to_run_is_no_flag_of_the_study():
    values = flags.FlagValues()
    run_flags.define(values)
    values(["study", "--epochs=3", "--tensorboard=false", "--exits=1,2"])
    given = ["--exits=1,2", "--epochs=3", "--tensorboard=false"]
    assert sorted(run_flags.given_flags(values, study.OURS)) == sorted(given)
    values(["study", "--seed=3"])
    with pytest.raises(UserError, match="--seed differs from run to run: give --seeds"):
        run_flags.given_flags(values, study.OURS)


def test_cores_are_shared_out():
    cores = os.sched_getaffinity(0)
    assert set().union(*study.shares(2)) == cores
    if len(cores) > 1:
        one, two = study.shares(2)
        assert not set(one) & set(two)
    assert all(study.shares(3 * len(cores)))  # more runs than cores: none without


def flagfile(folder, name, config):
    path = folder / f"{name}.flags"
    path.write_text(to_flagfile(config))
    return str(path)


@pytest.mark.run
def test_a_killed_study_goes_on(tmp_path):
    """kill -9 leaves its runs without it: the next start waits for them."""
    files = flagfile(tmp_path, "tiny", dataclasses.replace(TINY, epochs=2))
    common = [f"--flagfiles={files}", "--seeds=0,1", "--checkpoint_steps=3"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = Command("tools.study", *common, f"--study_dir={whole}").finish()
    assert done.returncode == 0, done.stderr
    line = r"tiny_\d: \S+ is finished: test exit_1 .*\n"
    assert re.fullmatch(f"({line}){{2}}python -m tf_mskd.report .*\n", done.stdout)
    process = Command("tools.study", *common, f"--study_dir={killed}")
    wait_for(lambda: list(killed.glob("tiny_*/checkpoints/*.npz")))
    process.send_signal(signal.SIGKILL)
    assert process.finish().returncode == -signal.SIGKILL
    done = Command("tools.study", *common, f"--study_dir={killed}").finish()
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("tiny_0", "tiny_1"):
        assert_same_run(whole / name, killed / name)


STUB = """
import pathlib, signal, sys, time
flags = dict(a[2:].split("=") for a in sys.argv[1:])
folder = pathlib.Path(flags["run_dir"])
folder.mkdir()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
(folder / "started").touch()
if flags["seed"] == "1":
    print("error: no luck")
    sys.exit(2)
if flags["seed"] == "2":
    time.sleep(600)
(folder / "result.json").write_text("{}")
print("well")
"""


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(study, "TRAIN", (sys.executable, "-c", STUB))
    monkeypatch.setattr(study, "POLL", 0.01)


def made(folder, seeds):
    (folder / "logs").mkdir()
    jobs = study.jobs_of([flagfile(folder, "own", OWN)], seeds, str(folder), [])
    return jobs, study.Study(str(folder), 1, 0)


@pytest.mark.run
def test_a_run_that_fails_is_told_and_the_others_are_done(tmp_path, stub, capsys):
    jobs, todo = made(tmp_path, ["1", "0", "3"])
    todo.run(jobs, 2)
    assert [job.finished for job in jobs] == [False, True, True]
    shown = capsys.readouterr().out.splitlines()
    assert sorted(shown) == ["own_0: well", "own_1: error: no luck", "own_3: well"]
    with pytest.raises(UserError, match=r"These runs failed: own_1\. What they say"):
        study.check(todo.failed, tmp_path)


@pytest.mark.run
def test_a_stop_reaches_the_runs(tmp_path, stub):
    jobs, todo = made(tmp_path, ["2", "0"])
    ended = todo._end

    def stop(job):
        ended(job)
        wait_for((tmp_path / "own_2" / "started").exists)
        raise KeyboardInterrupt

    todo._end = stop
    with pytest.raises(KeyboardInterrupt):
        todo.run(jobs, 2)
    assert jobs[0].process.returncode == 143 and jobs[1].finished


def test_a_folder_serves_one_study(tmp_path):
    with study.locked(tmp_path / "study.lock"):
        with pytest.raises(UserError, match="is in use by another process: wait"):
            with study.locked(tmp_path / "study.lock"):
                pass
