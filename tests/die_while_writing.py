"""Trains and kills its own process half-way through writing the state of a step.

python -m tests.die_while_writing STEP --flagfile=FILE
"""

import os
import runpy
import signal
import sys

import numpy as np


def main(step, *arguments):
    """Runs `tf_mskd.train` with the arguments until it writes the state of the step."""
    savez = np.savez

    def savez_or_die(file, **arrays):
        savez(file, **arrays)
        if f"state_{int(step):010d}" in str(file.name):
            file.truncate(file.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    np.savez = savez_or_die
    sys.argv[1:] = arguments
    runpy.run_module("tf_mskd.train", run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
