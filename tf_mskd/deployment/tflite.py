"""A SavedModel of `write_saved_model` as a TFLite file: one model, many signatures."""

import io
import json
import os
import re
import warnings
import zipfile
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tf_mskd.deployment.endpoints import DECISION, HasEndpoints
from tf_mskd.early_exit.thresholds import NEVER
from tf_mskd.utils import private
from tf_mskd.utils.errors import UserError

NO_TFLITE = ("early_exit_batched",)  # its stages see an unknown number of images


def convert(
    folder: str | os.PathLike,
    endpoints: HasEndpoints,
    quantize: str,
    images: np.ndarray | None = None,
) -> bytes:
    """Converts a SavedModel.

    Args:
        folder: path of the SavedModel.
        endpoints: `HasEndpoints` it was written from.
        quantize: one of `export.QUANTIZATIONS`: "none" float32, "float16" weights,
            "dynamic" int8 weights, "int8" weights and activations. Exit decisions and
            probabilities are float32 in all of them.
        images: uint8 [N, H, W, C], real images that the ranges of "int8" come from.

    Returns:
        bytes, the file.

    Raises:
        UserError: if TFLite cannot do what a layer does; it is named.
    """
    names = [name for name in endpoints.functions() if name not in NO_TFLITE]
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder), signature_keys=names
    )
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        converter.representative_dataset = lambda: _examples(names, images)
        private.calibrate_only(converter)
    try:
        with warnings.catch_warnings():
            # TensorFlow 2.21 calibrates with its own retired interpreter
            warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is deprecated")
            content = converter.convert()
            return _quantized(content) if quantize == "int8" else content
    except Exception as error:  # the converter raises several unrelated kinds
        raise _explained(error, endpoints.student) from error


def _examples(names, images):
    """Every image through every endpoint; none exits early, so all stages are seen."""
    for image in images:
        for name in names:
            inputs = {"image": image[None]}
            if name == "early_exit":
                inputs["threshold"] = np.float32(NEVER)
            yield name, inputs


def _quantized(calibrated):
    """int8 weights and activations, all but the operations of the decision."""
    kept = set()
    for subgraph in private.tflite_subgraphs(calibrated):
        for operator in subgraph.operators or []:
            for index in operator.outputs:
                name = subgraph.tensors[index].name.decode()
                # "a;b" is fused: a layer with an operation of the decision folded in.
                # What a signature returns is renamed, and is part of the decision.
                is_decision = all(DECISION in part for part in name.split(";"))
                if is_decision or index in subgraph.outputs:
                    kept.add(name)
    # what returns two tensors has no name there: `margin` alone takes the largest two
    return private.quantize(calibrated, sorted(kept), ["TOPK_V2"])


def _explained(error, student):
    """The `UserError` of a failed conversion, with the layer at fault."""
    text = str(error)
    layers = {layer.name for layer in private.all_layers(student)}
    scopes = re.findall(r'loc\((?:fused\[|callsite\()?"([^"]+)"', text)
    scopes += re.findall(r'"([^"]*/[^"]*)"', text)
    parts = [part for scope in scopes for part in re.split("[/:@;]", scope)]
    parts = [re.sub(r"_\d+$", "", p) if p not in layers else p for p in parts]
    at_fault = next((p for p in parts if p in layers - {student.name}), None)
    operations = sorted(set(re.findall(r"'(tf\.\w+)' op", text)))
    if at_fault and operations:
        return UserError(
            f"TFLite cannot take layer {at_fault!r}: it has no "
            f"{', '.join(operations)}. Replace the layer, or export saved_model alone."
        )
    reason = " ".join(text.split())[:300]
    return UserError(f"TFLite cannot take this student: {reason}")


def with_metadata(content: bytes, metadata: dict) -> bytes:
    """Adds a dict as metadata.json, in a zip archive behind the model.

    That is where TFLite's own metadata keeps a model's files: interpreters do not look
    behind the model, and `zipfile` reads it.
    """
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("metadata.json", json.dumps(metadata, indent=2) + "\n")
    return file.getvalue()


def open_tflite(
    path: str | os.PathLike, num_threads: int | None = None, keep_memory: bool = False
) -> dict[str, Callable]:
    """Endpoint name -> function of `image` (and `threshold`); NumPy in and out.

    Args:
        path: path of a TFLite file.
        num_threads: int, or None for the interpreter's choice.
        keep_memory: bool; every tensor has memory of its own for good. Otherwise what
            `early_exit` needs behind an exit is planned and allocated at every call.

    Raises:
        UserError: if ai-edge-litert is not installed.
    """
    interpreter = interpreter_class()(
        str(path),
        num_threads=num_threads,
        experimental_preserve_all_tensors=keep_memory,
    )
    names = interpreter.get_signature_list()
    return {name: interpreter.get_signature_runner(name) for name in names}


def interpreter_class() -> type:
    """LiteRT's `Interpreter`, which verifies a TFLite file."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(
            "TFLite files are verified when they are written, and ai-edge-litert is "
            "not installed: pip install ai-edge-litert==2.3.0, or export saved_model "
            "alone."
        ) from error
    return Interpreter
