"""Students and teachers as `.keras` files: atomic out, safe in."""

import hashlib
import os
import pathlib

import keras

from tf_mskd import models
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError


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


def load_model(path: str | os.PathLike) -> keras.Model:
    """Reads a model that `save_model` wrote, in Keras' safe mode.

    Args:
        path: str or path of a `.keras` file, or of a run folder that holds
            `student.keras`.

    Returns:
        functional Keras model, uncompiled; its output is a dict of exits.

    Raises:
        UserError: if there is no such file, or it cannot be read safely.

    Example:
        >>> student = tf_mskd.load_model("runs/mskd")  # doctest: +SKIP
    """
    model, path = load_network(path), files.model_file(path)
    if not getattr(model, "outputs", None) or not models.exit_names(model):
        raise UserError(f"{str(path)!r} has no output named exit_1, exit_2, ...")
    return model


def load_network(path: str | os.PathLike) -> keras.Model:
    """Reads any Keras model, with exits or without, in Keras' safe mode.

    Args:
        path: as for `load_model`.

    Returns:
        Keras model, uncompiled.

    Raises:
        UserError: if there is no such file, or it cannot be read safely.
    """
    path = files.model_file(path)
    _check_suffix(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds for a damaged or unsafe file
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"Cannot read model file {str(path)!r}: {reason}") from error


def _check_suffix(path):
    if path.suffix != ".keras":  # Keras has other readers for other suffixes
        raise UserError(f"A model file must end in .keras, got {str(path)!r}.")


def fingerprint(model: keras.Model) -> str:
    """Returns a SHA-256 (hex) of the values of all weights, in order."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(keras.ops.convert_to_numpy(weight).tobytes())
    return digest.hexdigest()
