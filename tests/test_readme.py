"""The README's Python runs as printed; its links and flags: `test_docs.py`."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


@pytest.mark.run
def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS:
        exec(compile(block.replace("epochs=5", "epochs=2"), "README.md", "exec"), names)
    assert (tmp_path / "student.keras").exists()
    assert "['exit_1', 'exit_2', 'exit_3']" in capsys.readouterr().out


def test_the_api_fits_in_about_fifteen_lines():
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) <= 18


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 150
