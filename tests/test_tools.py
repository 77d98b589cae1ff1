"""The tools beside the package: scaffold, and documents they generate."""

import pathlib
import re
import shutil
import subprocess
import sys
import types

import pytest

from tf_mskd.methods.common import registry
from tools import benchmark, dense_cases, make_docs, new_method

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.run
def test_a_scaffolded_method_passes_its_own_and_all_common_tests(tmp_path):
    for name in ("tf_mskd", "tests", "tools", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    tool = [sys.executable, "tools/new_method.py", "nearest", "pulls vectors together"]
    made = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert made.stdout.count("wrote ") == 3
    command = [sys.executable, "-m", "pytest", "-q", "tests/methods/test_nearest.py"]
    command += ["tests/test_every_method.py", "-k", "nearest", "-p", "no:cacheprovider"]
    tests = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert tests.returncode == 0, tests.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", tests.stdout).group(1))
    assert passed > 12, tests.stdout[-500:]
    ruff = [sys.executable, "-m", "ruff", "check", "tf_mskd/methods/nearest.py"]
    assert subprocess.run(ruff, cwd=tmp_path).returncode == 0


def test_the_scaffold_refuses_bad_and_taken_names(tmp_path, capsys):
    with pytest.raises(ValueError, match="lower-case letters, digits, _: 'My-Method'"):
        new_method.scaffold(tmp_path, "My-Method", "")
    new_method.scaffold(tmp_path, "mine", "it works")
    with pytest.raises(ValueError, match="mine.py exists: choose another name"):
        new_method.scaffold(tmp_path, "mine", "it works")
    assert new_method.main(["kd"]) == 1
    assert capsys.readouterr().out.startswith("error: tf_mskd/methods/kd.py exists")
    assert new_method.main([]) == 2


def test_every_method_has_a_flagfile_and_a_test():
    for name in registry.available_methods():
        assert (ROOT / "configs" / "methods" / f"{name}.flags").exists(), name
        tested = name.removesuffix("_teacher")  # with the method it prepares
        files = [ROOT / "tests/methods" / f"test_{n}.py" for n in (name, tested)]
        assert any(f.exists() for f in files), name


def test_the_document_of_methods_is_up_to_date():
    path = ROOT / "docs" / "methods.md"
    assert path.read_text() == make_docs.document(), "run python tools/make_docs.py"
    for name in registry.available_methods():
        assert f"\n## {name}\n" in path.read_text()


def test_the_benchmarks_ratios_are_taken_within_a_round(monkeypatch):
    monkeypatch.setattr(benchmark, "FLAGS", types.SimpleNamespace(batch_size=8))
    times = {"student": [1.0, 2.0, 3.0], "teacher": [1.0, 2.0, 1.0]}
    times["mskd"] = [3.0, 4.0, 6.0]  # by the sums: 1.5, 1.0, 1.5
    compared = {"mskd": ("student", "teacher")}
    rows, numbers = benchmark.step_table("pair", times, compared)
    assert numbers["seconds"] == {"student": 2.0, "teacher": 1.0, "mskd": 4.0}
    assert numbers["ratios"] == {"mskd": 1.5}
    assert rows[1] == ["student", "2000", "4", "", ""]
    assert rows[3] == ["mskd", "4000", "2", "1.50", "student + teacher"]


@pytest.mark.run
def test_the_benchmarks_step_of_segmentation_runs(monkeypatch):
    monkeypatch.setattr(dense_cases, "SIZES", {"small": (3, 1 / 32, 1 / 32)})
    compared = {"fckd, live": dense_cases.ALL_EXITS}
    monkeypatch.setattr(dense_cases, "COMPARED", compared)
    cases = dense_cases.dense_cases("small", 2)
    assert list(cases)[-1] == "fckd, live" and len(cases) == 4
    cases["fckd, live"](1)


@pytest.mark.run
def test_the_benchmarks_meter_counts_every_pixel():
    found = dense_cases.meter_large_maps(images=1, batch_size=1)
    assert set(found["miou"]) > {"exit_1", "exit_4", "ensemble"}
    assert all(0.02 < v < 0.03 for v in found["miou"].values())  # chance: 1 / 41
