"""A student as a SavedModel: plain TensorFlow functions and their variables."""

import json
import os
import pathlib
from collections.abc import Callable

import tensorflow as tf

from tf_mskd.deployment.endpoints import HasEndpoints

METADATA = pathlib.Path("assets.extra", "metadata.json")


def write_saved_model(
    endpoints: HasEndpoints, folder: str | os.PathLike, metadata: dict
) -> None:
    """Writes a SavedModel whose signatures are the endpoints.

    "serving_default" is "ensemble". No Keras object goes into it: what loads it needs
    TensorFlow alone.

    Args:
        endpoints: `HasEndpoints`.
        folder: path to make.
        metadata: dict, written as JSON to assets.extra/metadata.json below `folder`.
    """
    functions = endpoints.functions()
    signatures = {n: f.get_concrete_function() for n, f in functions.items()}
    signatures["serving_default"] = signatures["ensemble"]
    module = tf.Module()
    module.tracked = [variable.value for variable in endpoints.student.variables]
    tf.saved_model.save(module, str(folder), signatures)
    path = pathlib.Path(folder) / METADATA
    path.parent.mkdir()
    path.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


def open_saved_model(folder: str | os.PathLike) -> dict[str, Callable]:
    """Endpoint name -> function of `image` (and `threshold`); NumPy in and out."""
    loaded = tf.saved_model.load(str(folder))

    def runner(function):
        def run(**inputs):
            inputs = {name: tf.constant(value) for name, value in inputs.items()}
            return {name: value.numpy() for name, value in function(**inputs).items()}

        run.keep = loaded  # the signatures do not keep the variables alive
        return run

    return {name: runner(f) for name, f in loaded.signatures.items()}
