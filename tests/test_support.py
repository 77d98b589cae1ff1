"""A forked command is a process like any other."""

import signal

import pytest

from tests.support import ROOT, Command

pytestmark = pytest.mark.run

PROGRAM = """import os, signal, sys
print(os.getcwd(), os.environ["NAME"], sys.argv[1:], __name__)
if sys.argv[1] == "kill":
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGTERM)
print("on stderr", file=sys.stderr)
if sys.argv[1] == "raise":
    raise ValueError("raised")
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("argument", "code"),
    [("0", 0), ("3", 3), ("raise", 1), ("kill", -signal.SIGTERM)],
)
def test_a_command_has_arguments_environment_output_and_code(
    tmp_path, monkeypatch, argument, code
):
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    done = Command("program", argument, 5, environment={"NAME": "value"}).finish()
    assert done.returncode == code
    expected = f"{ROOT} value ['{argument}', '5'] __main__\n"
    assert done.stdout == expected
    assert ("on stderr\n" in done.stderr) == (code >= 0)
    assert ("Traceback" in done.stderr) == (argument == "raise")
