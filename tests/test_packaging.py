"""What is installed: requirements, versions, and a wheel with its flagfiles."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement

from tf_mskd.utils.version import VERSION

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().lower().splitlines()
    if not line.startswith("#")
)


def test_the_tested_version_of_every_requirement_is_in_its_range():
    extras = PROJECT["optional-dependencies"].values()
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    needed = [text for line in lines if (text := line.partition("#")[0].strip())]
    assert len(needed) > 10
    for text in [*needed, *sum(extras, [])]:
        requirement = Requirement(text)
        if requirement.name != PROJECT["name"]:
            assert PINS[requirement.name] in requirement.specifier, text


def test_other_files_name_the_same_versions():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.search(r"rev: v(.*)", hooks).group(1) == PINS["ruff"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {VERSION}\n" in citation


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from a copy of what it is made of."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("tf_mskd", "configs", "results"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    command = [sys.executable, "-c", build]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-2000:]
    return next(folder.glob("*.whl"))


@pytest.mark.run
def test_the_wheel_holds_every_module_and_every_flagfile(wheel):
    wanted = {"py.typed", "results/published.csv"}
    wanted |= {str(path.relative_to(ROOT)) for path in ROOT.glob("configs/**/*.flags")}
    modules = (ROOT / "tf_mskd").rglob("*.py")
    wanted |= {str(path.relative_to(ROOT / "tf_mskd")) for path in modules}
    pictures = (ROOT / "tf_mskd" / "data" / "pictures").iterdir()
    wanted |= {str(path.relative_to(ROOT / "tf_mskd")) for path in pictures}
    names = set(zipfile.ZipFile(wheel).namelist())
    held = {
        name.removeprefix("tf_mskd/") for name in names if ".dist-info/" not in name
    }
    assert held - {"configs/README.md"} == wanted


@pytest.mark.run
def test_an_installed_command_finds_the_flagfiles_from_another_folder(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    command = [sys.executable, "-m", "tf_mskd", "train", "--dry_run"]
    command += ["--flagfile=configs/digits/mskd.flags", "--run_dir=runs/mskd"]
    done = subprocess.run(
        command,
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "runs/mskd" in done.stdout and "runs/teacher" in done.stdout
