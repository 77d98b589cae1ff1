"""Profiles of single steps: which steps, what remains of them, what is refused."""

import dataclasses
import types

import pytest
import tensorflow as tf

from tests.support import OWN, assert_same_run
from tf_mskd.runs import experiment
from tf_mskd.runs.config import Config, differing
from tf_mskd.runs.flags import read_flags, to_flagfile
from tf_mskd.training import profiling
from tf_mskd.training.profiling import ProfiledLoop
from tf_mskd.utils.errors import UserError


@pytest.fixture
def events(monkeypatch):
    """Starts and stops of the profiler, in order; it itself does nothing."""
    seen = []
    fake = types.SimpleNamespace(
        start=lambda folder: seen.append("start"), stop=lambda: seen.append("stop")
    )
    monkeypatch.setattr(profiling.tf.profiler, "experimental", fake)
    return seen


def loop_of(events, steps, folder="logs"):
    """Steps that tell their numbers, from 0."""

    def tell(i):
        events.append(int(i))
        return i

    def train_step(batch):
        told = tf.numpy_function(tell, [batch], tf.int64)
        with tf.control_dependencies([told]):
            return {"loss": tf.constant(0.0)}

    distiller = types.SimpleNamespace(phase=1, train_step=train_step)
    strategy = tf.distribute.get_strategy()
    data = tf.data.Dataset.range(12)
    return ProfiledLoop(distiller, strategy, data.skip, steps, folder)


@pytest.mark.parametrize("calls", [(12,), (5, 7), (2, 3, 3, 4), (1,) * 12])
def test_the_profile_begins_and_ends_with_its_steps(events, calls, capsys):
    loop = loop_of(events, (4, 8))
    with loop.guarding():
        loop.open(0)
        assert [loop.run(steps).finite for steps in calls] == list(calls)
    expected = [0, 1, 2, "start", 3, 4, 5, 6, 7, "stop", 8, 9, 10, 11]
    assert events == expected
    assert capsys.readouterr().out == "profile of the steps to 8 in logs\n"


def test_a_run_that_ends_before_ends_the_profile(events):
    loop = loop_of(events, (2, 9))
    with pytest.raises(KeyboardInterrupt), loop.guarding():
        loop.open(0)
        loop.run(3)
        raise KeyboardInterrupt
    assert events == [0, "start", 1, 2, "stop"]


@pytest.mark.parametrize(("first", "expected"), [(5, ["start", "stop"]), (9, [])])
def test_a_resumed_run_profiles_what_is_left(events, first, expected):
    loop = loop_of(events, (4, 8))
    with loop.guarding():
        loop.open(first)
        loop.run(12 - first)
    assert [event for event in events if isinstance(event, str)] == expected


def test_a_worker_beside_the_chief_profiles_nothing(events):
    loop = loop_of(events, (4, 8), folder=None)
    with loop.guarding():
        loop.open(0)
        assert loop.run(12).finite == 12
    assert events == list(range(12))


@pytest.mark.parametrize("text", ["5", "5,4", "0,4", "a,b", "1,2,3", "1.5,2", "5:9"])
def test_other_texts_are_refused(text):
    with pytest.raises(UserError, match=f"last, .* such as 101,120, got '{text}'"):
        Config(profile_steps=text)


def test_it_is_no_part_of_what_a_run_is(tmp_path):
    config = Config(profile_steps="3,7")
    assert config.profile_steps == (3, 7)
    assert not differing(Config(), config)
    (tmp_path / "a.flags").write_text(to_flagfile(config))
    assert read_flags([f"--flagfile={tmp_path / 'a.flags'}"]) == config


@pytest.mark.run
def test_the_files_of_a_profile_lie_in_the_logs_of_the_run(tmp_path, capsys):
    folders = [tmp_path / "plain", tmp_path / "profiled"]
    experiment.run(dataclasses.replace(OWN, run_dir=str(folders[0])))
    config = dataclasses.replace(OWN, run_dir=str(folders[1]), profile_steps="3,4")
    experiment.run(config)
    logs = folders[1] / "tensorboard"
    assert [p for p in logs.rglob("*.xplane.pb") if p.stat().st_size]
    assert f"profile of the steps to 4 in {logs}" in capsys.readouterr().out
    assert_same_run(*folders)


@pytest.mark.run
def test_steps_that_the_run_has_not_are_refused(tmp_path):
    config = dataclasses.replace(OWN, run_dir=str(tmp_path), profile_steps="3,400")
    with pytest.raises(
        UserError, match="=3,400 is beyond the last step of the run, 20"
    ):
        experiment.run(config)
