"""TAKD is a chain of flagfiles: teacher, assistant, student, each a run of its own."""

import dataclasses
import json

import pytest

from tests.support import TINY
from tf_mskd.models.saving import fingerprint, load_model
from tf_mskd.runs import experiment
from tf_mskd.runs.flags import to_flagfile

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
