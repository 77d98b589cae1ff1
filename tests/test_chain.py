"""TAKD is a chain of flagfiles: teacher, assistant, student, each a run of its own."""

import dataclasses
import json

import pytest

from tests.support import TINY
from tf_mskd.models.saving import fingerprint, load_model
from tf_mskd.runs import build, experiment
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.utils.errors import UserError

TEACHER = dataclasses.replace(
    TINY, width=0.1875, exits="2", train_fraction=0.2, epochs=1, lr_schedule="constant"
)


@pytest.mark.run
def test_a_chain_of_flagfiles_trains_as_three_runs(tmp_path, capsys):
    """The student learns from the assistant, which has learnt from the teacher."""
    flags, runs = tmp_path / "flags", tmp_path / "runs"
    flags.mkdir()
    link = {"method": "kd", "teacher_flagfile": str(flags / "teacher.flags")}
    assistant = dataclasses.replace(TEACHER, width=0.125, **link)
    (flags / "teacher.flags").write_text(to_flagfile(TEACHER))
    (flags / "assistant.flags").write_text(to_flagfile(assistant))
    link["teacher_flagfile"] = str(flags / "assistant.flags")
    student = dataclasses.replace(TEACHER, width=0.0625, **link)

    experiment.run(dataclasses.replace(student, run_dir=str(runs / "student")))
    said = capsys.readouterr().out
    order = [said.index(f"run {runs / name}\n") for name in ("teacher", "assistant")]
    assert order == sorted(order) and order[1] < said.index(f"run {runs / 'student'}\n")
    for name, teacher in (("assistant", "teacher"), ("student", "assistant")):
        record = json.loads((runs / name / "run.json").read_text())
        known = fingerprint(load_model(runs / teacher))
        assert record["fingerprints"] == {"teacher": known}, name
    sizes = [
        json.loads((runs / name / "result.json").read_text())["params"]
        for name in ("teacher", "assistant", "student")
    ]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3

    kept = {p: p.stat().st_mtime_ns for p in (runs / "assistant").iterdir()}
    other = dataclasses.replace(student, run_dir=str(runs / "other"), seed=1)
    experiment.run(other)
    said = capsys.readouterr().out
    assert f"{runs / 'assistant'} is finished: test exit_2" in said
    assert f"run {runs / 'assistant'}\n" not in said, "the assistant was trained again"
    assert f"run {runs / 'teacher'}\n" not in said, "the teacher was trained again"
    lock = runs / "assistant" / "lock"
    for path, time in kept.items():
        assert path == lock or path.stat().st_mtime_ns == time, f"{path} was written"


@pytest.mark.run
def test_every_run_of_a_chain_is_checked_before_one_trains(tmp_path, capsys):
    """A mistake of the assistant's stops the command before the teacher trains."""
    wrong = {"method": "kd", "teacher_flagfile": str(tmp_path / "teacher.flags")}
    wrong |= {"exit_weights": "exit_9:1"}
    (tmp_path / "teacher.flags").write_text(to_flagfile(TEACHER))
    assistant = dataclasses.replace(TEACHER, width=0.125, **wrong)
    (tmp_path / "assistant.flags").write_text(to_flagfile(assistant))
    student = dataclasses.replace(
        TEACHER, method="kd", teacher_flagfile=str(tmp_path / "assistant.flags")
    )
    with pytest.raises(UserError, match="Unknown exit in exit_weights 'exit_9'"):
        experiment.run(dataclasses.replace(student, run_dir=str(tmp_path / "student")))
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "teacher").exists()


@pytest.mark.run
def test_a_run_builds_one_method_to_check_it_and_one_to_train(tmp_path, monkeypatch):
    made, create = [], build.create_method
    monkeypatch.setattr(
        build, "create_method", lambda *a, **k: made.append(a) or create(*a, **k)
    )
    experiment.run(dataclasses.replace(TEACHER, run_dir=str(tmp_path / "run")))
    assert made == [("ce",), ("ce",)]
