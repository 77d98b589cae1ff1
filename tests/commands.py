"""Runs commands in forks of a bare interpreter; prints what they did as JSON.

python tests/commands.py '[["tf_mskd.train", "--help"], ...]'

Each result: exit code, both streams, CPU seconds, which heavy packages were imported.
The first one is that of absl alone, for comparison.
"""

import json
import os
import runpy
import sys
import tempfile

HEAVY = ("tensorflow", "keras", "numpy", "scipy", "matplotlib")


def run(command):
    """Runs a command, [module, *arguments], in a fork."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with tempfile.TemporaryFile() as imported:
            child = os.fork()
            if not child:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                code = _main(*command)
                found = [name for name in HEAVY if name in sys.modules]
                os.write(imported.fileno(), json.dumps(found).encode())
                os._exit(code)
            _, status, usage = os.wait4(child, 0)
            files = [file.seek(0) or file.read() for file in (out, err, imported)]
    return {
        "code": os.waitstatus_to_exitcode(status),
        "out": files[0].decode(),
        "err": files[1].decode(),
        "imported": json.loads(files[2] or "[]"),
        "cpu": usage.ru_utime + usage.ru_stime,
    }


def _main(module, *arguments):
    sys.argv = [module, *arguments]
    code = 0
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    commands = [["absl.app"], *json.loads(sys.argv[1])]
    print(json.dumps([run(command) for command in commands]))
