"""Runs a command that sends itself a signal at a moment of its work.

python -m tests.signal_at SIGNAL MOMENT MODULE --flagfile=FILE

A process that another one watches may be past the moment before the signal arrives;
this one stands at it. Moments, each one argument:

"after FOLDER STEP"   the checkpoint of at least so many steps is in the run's folder
"within FOLDER STEP"  half of that checkpoint is written
"call MODULE:NAME N"  before the N-th call of a function
"""

import importlib
import os
import re
import runpy
import signal
import sys

CHECKPOINT = re.compile(r"/([^/]+)/checkpoints/[a-z]+_(\d{10})\.npz$")


def main(name, moment, module, *arguments):
    """Runs the module as a program and sends the signal once."""
    number, (kind, *words) = signal.Signals[name], moment.split()

    def send():
        undo()
        os.kill(os.getpid(), number)

    prepare = at_call if kind == "call" else at_checkpoint
    undo = prepare(send, kind, *words)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def at_call(send, kind, function, count):
    """Sends before a call of a function; returns what takes this back."""
    module, _, path = function.partition(":")
    *owners, name = path.split(".")
    owner, left = importlib.import_module(module), int(count)
    for part in owners:
        owner = getattr(owner, part)
    original = getattr(owner, name)

    def counted(*args, **kwargs):
        nonlocal left
        left -= 1
        if left == 0:
            send()
        return original(*args, **kwargs)

    setattr(owner, name, counted)
    return lambda: setattr(owner, name, original)


def at_checkpoint(send, kind, folder, step):
    """Sends where a checkpoint takes its name; returns what takes this back."""
    replace = os.replace

    def watched(source, target):
        found = CHECKPOINT.search(str(target))
        here = found and found[1] == folder and int(found[2]) >= int(step)
        if here and kind == "within":
            os.truncate(source, os.path.getsize(source) // 2)
            send()
        replace(source, target)
        if here:
            send()

    os.replace = watched
    return lambda: setattr(os, "replace", replace)


if __name__ == "__main__":
    main(*sys.argv[1:])
