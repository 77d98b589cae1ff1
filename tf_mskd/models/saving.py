"""Students and teachers as `.keras` files: atomic out, safe in."""

import hashlib
import os
import pathlib

import keras

from tf_mskd import models
from tf_mskd.models.plain import as_functional, as_teacher
from tf_mskd.tasks import Task
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError

READABLE = (".keras", ".h5", ".hdf5")


def save_model(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes a model to a `.keras` file; an interrupted write keeps the old file.

    Args:
        model: functional Keras model, such as `distiller.student`.
        path: str or path that ends in ".keras"; an existing file is replaced.

    Raises:
        UserError: if the name does not end in ".keras".
    """
    path = pathlib.Path(path)
    _check_suffix(path)
    with files.replacing(path) as temporary:
        model.save(temporary)


def load_model(
    path: str | os.PathLike, task: str | Task = "classification"
) -> keras.Model:
    """Reads a trained network, in Keras' safe mode.

    Args:
        path: str or path of a `.keras` file, of an `.h5` file of a whole model, or of a
            run folder that holds `student.keras`.
        task: what the exits answer, a `Task` or the name of one, for models without
            named exits.

    Returns:
        functional Keras model, uncompiled; its output is a dict of exits. A classifier
        with one output has the exit "exit_1", its probabilities become logits.

    Raises:
        UserError: if there is no such file, or it cannot be read safely.

    Example:
        >>> student = tf_mskd.load_model("runs/mskd")  # doctest: +SKIP
    """
    path = files.model_file(path)
    model = read_model(path)
    exits = models.exit_names(model)
    if exits and isinstance(model.output, dict):
        return model
    if len(model.outputs) != 1 and not exits:
        raise UserError(f"{str(path)!r} has no output named exit_1, exit_2, ...")
    return as_teacher(model, task=task)


def read_model(path: str | os.PathLike) -> keras.Model:
    """Reads any functional or sequential model, in Keras' safe mode.

    Args:
        path: str or path of a `.keras` file, or of an `.h5` file of a whole model.

    Returns:
        functional Keras model, uncompiled.

    Raises:
        UserError: if the file cannot be read safely, or holds another kind of model.
    """
    path = pathlib.Path(path)
    _check_suffix(path, READABLE)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds for a damaged or unsafe file
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"Cannot read model file {str(path)!r}: {reason}") from error
    functional = as_functional(model)
    if functional is None:
        raise UserError(
            f"Cannot read model file {str(path)!r}: it must hold a functional Keras "
            f"model, got a {type(model).__name__}."
        )
    return functional


def _check_suffix(path, suffixes=(".keras",)):
    if path.suffix not in suffixes:  # Keras has other readers for other suffixes
        raise UserError(
            f"A model file must end in {' or '.join(suffixes)}, got {str(path)!r}."
        )


def fingerprint(model: keras.Model) -> str:
    """Returns a SHA-256 (hex) of the values of all weights, in order."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(keras.ops.convert_to_numpy(weight).tobytes())
    return digest.hexdigest()
