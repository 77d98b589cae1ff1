"""TensorFlow, imported without what it reports of the machine on every start."""

import importlib
import os
import sys


def start_tensorflow() -> None:
    """Imports TensorFlow for a command, whose stderr is for its own errors.

    TF_CPP_MIN_LOG_LEVEL is set to 3 unless the user has set it. During the import
    TensorFlow reports processor features and missing GPU drivers before it reads that
    level, so the file descriptor leads nowhere meanwhile; failures are exceptions.
    With a level of 0 everything is shown.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if level == "0" or "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    shown, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        importlib.import_module("tensorflow")
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)
