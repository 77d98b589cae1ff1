"""The documents: their links lead somewhere, their flags exist, their Python runs."""

import dataclasses
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_mskd
from tf_mskd.methods.common import registry
from tf_mskd.runs.config import Config

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("*.md", "docs/*.md", "configs/*.md", "results/*/README.md")
PAGES = sorted(page for folder in FOLDERS for page in ROOT.glob(folder))
TEXT = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
DEFINED = re.compile(r"DEFINE_\w+\(\s*[\"'](\w+)|add_argument\([\"']--(\w+)")


def _anchor(heading):
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", TEXT)
def test_links_lead_to_files_and_headings(page):
    wrong = []
    prose = re.sub(r"```.*?```", "", TEXT[page], flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if path.startswith("http"):
            continue
        if not target.exists():
            wrong.append(link)
        elif anchor:
            headings = re.findall(r"^#+ (.*)", target.read_text(), re.M)
            if anchor not in map(_anchor, headings):
                wrong.append(link)
    assert not wrong


def test_every_page_is_in_the_index():
    listed = set(re.findall(r"\]\((\w+\.md)\)", TEXT["docs/README.md"]))
    assert listed | {"README.md"} == {p.name for p in ROOT.glob("docs/*.md")}


@pytest.mark.parametrize("page", TEXT)
def test_named_files_exist(page):
    pattern = r"`((?:configs|docs|tools|tests|tf_mskd)/[\w/]+[\w.]*)`"
    named = set(re.findall(pattern, TEXT[page]))
    named |= set(re.findall(r"--flagfile=(configs/[\w/]+\.flags)", TEXT[page]))
    assert not {name for name in named if not (ROOT / name).exists()}


def test_named_flags_exist():
    sources = [*ROOT.glob("tf_mskd/**/*.py"), *ROOT.glob("tools/*.py")]
    found = DEFINED.findall("".join(path.read_text() for path in sources))
    flags = {field.name for field in dataclasses.fields(Config)}
    flags |= {name for pair in found for name in pair} | {"flagfile", "help"}
    scripts = "".join(path.read_text() for path in ROOT.glob("tools/*.sh"))
    flags |= set(re.findall(r"--(\w+)", scripts))
    wrong = {
        (page, flag)
        for page, text in TEXT.items()
        if page != "CHANGELOG.md"
        for line in text.splitlines()
        if not re.search(r"pip |tensorflow_model_server|git |--rest|^ +--model", line)
        for flag in re.findall(r"(?<![\w-])--(\w+)", line)
        if flag not in flags
    }
    assert not wrong


def run_python(page, names):
    """Runs the blocks of a page in order; returns their text."""
    blocks = re.findall(r"```python\n(.*?)```", TEXT[page], re.S)
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return "".join(blocks)


@pytest.mark.parametrize(
    "page",
    [
        "docs/models.md",
        "docs/adding.md",
        pytest.param("docs/tasks.md", marks=pytest.mark.run),
        pytest.param("results/tasks/README.md", marks=pytest.mark.run),
    ],
)
def test_python_runs(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for what a page writes
    names = {}
    text = run_python(page, names)
    printed = re.findall(r"^(?:print\(.*\)  )?# (.*)", text, re.M)
    assert capsys.readouterr().out.splitlines() == printed
    if "LastExit" in names:
        assert registry._methods.pop("last_exit") is names["LastExit"]


@pytest.mark.run
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.exper")
def test_python_of_the_library_runs(tiny, digits, tmp_path, monkeypatch):
    """What the page speaks of is there: networks, their Distiller, images, labels."""
    monkeypatch.chdir(tmp_path)
    names = {"keras": keras, "tf_mskd": tf_mskd, "student": tiny(), "teacher": tiny()}
    names["distiller"] = tf_mskd.Distiller(names["student"], names["teacher"])
    names["images"], names["labels"] = digits[0][:32], np.eye(10)[digits[1][:32]]
    tf.config.run_functions_eagerly(True)  # tracing would take most of the time
    try:
        run_python("docs/python.md", names)
    finally:
        tf.config.run_functions_eagerly(False)
    assert "exit_2_top5" in names["distiller"].history.history
    assert list(names["student"].output) == ["exit_1", "exit_2", "exit_3", "exit_4"]


def test_the_python_of_every_page_is_run():
    """Of the README in test_readme.py, of the exported files in test_export.py."""
    run = {"docs/models.md", "docs/adding.md", "docs/python.md", "docs/tasks.md"}
    run.add("results/tasks/README.md")
    elsewhere = {"README.md", "docs/deployment.md"}
    assert {page for page in TEXT if "```python" in TEXT[page]} == run | elsewhere
