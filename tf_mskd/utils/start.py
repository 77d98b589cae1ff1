"""TensorFlow without what it reports of the machine and of its converters."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator


def start_tensorflow() -> None:
    """Imports TensorFlow for a command, whose stderr is for its own errors.

    TF_CPP_MIN_LOG_LEVEL is set to 3 unless the user has set it. During the import
    TensorFlow reports processor features and missing GPU drivers before it reads that
    level.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        with silent_stderr():
            importlib.import_module("tensorflow")


def on_jax() -> bool:
    """Whether the user has asked for Keras on JAX, which needs no TensorFlow."""
    return os.environ.get("KERAS_BACKEND") == "jax"


def start_jax() -> None:
    """Keeps stderr for a command's own errors where Keras runs on JAX.

    Where TensorFlow is installed Keras imports it, to seed it: here it is done before.
    """
    with contextlib.suppress(ImportError):
        start_tensorflow()


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Leads stderr nowhere for what TensorFlow prints whatever its level says.

    Failures are exceptions and pass. With TF_CPP_MIN_LOG_LEVEL=0 everything is shown.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        yield
        return
    sys.stderr.flush()
    shown, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)
