"""Students that answer at every pixel as files: SavedModel and TFLite.

Endpoints: ensemble, and exit_1 .. exit_K; all take `image`, uint8 [B, H, W, C], and
return "class" int32 [B, H, W] and "confidence" float32 [B, H, W] at the image's size:
what resizes the exits is inside.
"""

import os
import shutil
import typing
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_mskd.deployment import checks, saved_model, tflite
from tf_mskd.deployment.endpoints import DECISION
from tf_mskd.deployment.export import MIN_CALIBRATION, versions, writing
from tf_mskd.deployment.precision import in_float32
from tf_mskd.models import graph
from tf_mskd.models.graph import sub_model
from tf_mskd.models.saving import fingerprint
from tf_mskd.tasks import Task
from tf_mskd.training.batch_norm import fold_batch_norms
from tf_mskd.utils import files
from tf_mskd.utils.choices import FORMATS, QUANTIZATIONS
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.names import number

FORMAT = 1
BATCH = 8
# pixels of the same class, at least
AGREEMENT = {"none": 0.999, "float16": 0.99, "dynamic": 0.9, "int8": 0.9}


class MapEndpoints:
    """The endpoints of a student as TensorFlow functions.

    Args:
        student: functional float32 model of one image, whose output is a dict of exits.
        names: list of str, its exits to export, shallow to deep.
        task: `Task` with a confidence.
    """

    def __init__(self, student: keras.Model, names: list[str], task: Task):
        self.student, self.names, self._task = student, names, task
        outputs = graph.available_outputs(student)
        self._exits = [outputs[name] for name in names]
        self.numbers = [number(name) for name in names]
        self._size = tuple(student.input.shape[1:3])

    def functions(self) -> dict[str, typing.Any]:
        """Returns a dict, endpoint name -> `tf.function` of fixed input signature."""
        spec = tf.TensorSpec((None, *self.student.input.shape[1:]), tf.uint8, "image")
        bodies = {"ensemble": self._body(self._exits)}
        for name, exit in zip(self.names, self._exits, strict=True):
            bodies[name] = self._body([exit])
        return {
            name: tf.function(body, input_signature=[spec], autograph=False)
            for name, body in bodies.items()
        }

    def _body(self, exits):
        def body(image):
            symbolic = self.student.inputs[0]
            known = {id(symbolic): tf.cast(image, symbolic.dtype)}
            outputs = dict(enumerate(graph.replay(exits, known)))
            with tf.name_scope(DECISION):
                logits = self._task.vote(outputs)
                if tuple(logits.shape[1:3]) != self._size:
                    logits = tf.image.resize(logits, self._size, "bilinear")
                told = tf.argmax(logits, axis=-1, output_type=tf.int32)
                return {"class": told, "confidence": self._task.confidence(logits)}

        return body


def export_maps(
    student: keras.Model,
    task: Task,
    output: str | os.PathLike,
    images: np.ndarray,
    *,
    formats: Sequence[str] = ("saved_model", "tflite"),
    quantize: Sequence[str] = ("none",),
    deepest_exit: int | None = None,
    calibration_images: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> dict:
    """Writes a student of label maps as files; each is run and compared with Keras.

    Args:
        student: functional model of one image input, whose output is a dict of exits.
        task: `Task` with a confidence.
        output, images, formats, quantize, deepest_exit, calibration_images,
            class_names, overwrite: see `export.export_student`.

    Returns:
        dict, the content of export.json.

    Raises:
        UserError: if an argument does not fit, a layer cannot be converted, or a file
            tells other classes than Keras at more pixels than `AGREEMENT` lets it.
    """
    checks.check_output(output, overwrite)
    formats = checks.checked_names("format", formats, FORMATS)
    quantize = checks.checked_names("quantization", quantize, QUANTIZATIONS)
    names = checks.checked_exits(student, deepest_exit)
    checks.check_images(student, images, "images", 1)
    if "int8" in quantize:
        given = calibration_images
        checks.check_images(student, given, "calibration_images", MIN_CALIBRATION)
    checks.check_class_names(student, names, class_names)
    if "tflite" in formats:
        tflite.interpreter_class()
    kept = in_float32(sub_model(student, names))
    expected = _answers(MapEndpoints(kept, names, task).functions(), images)
    endpoints = MapEndpoints(fold_batch_norms(kept, for_good=True), names, task)
    record: dict[str, typing.Any] = {
        "format": FORMAT,
        "task": task.name,
        "model": student.name,
        "student": fingerprint(student),
        "params": kept.count_params(),
        "image": {"shape": list(kept.input.shape[1:]), "dtype": "uint8"},
        "exits": names,
        "endpoints": list(endpoints.functions()),
        "class_names": list(class_names) if class_names else None,
        "versions": versions(),
    }

    def verify(runners, numbers, file):
        return _verify(_answers(runners, images), expected, numbers, file)

    with writing(output, overwrite) as folder:
        path = folder / "saved_model"
        saved_model.write_saved_model(endpoints, path, record)
        opened = saved_model.open_saved_model(path)
        entries = [_entry(path, "saved_model", "none", verify(opened, "none", path))]
        for numbers in quantize if "tflite" in formats else []:
            content = tflite.convert(path, endpoints, numbers, calibration_images)
            kind = "float32" if numbers == "none" else numbers
            file = folder / f"student_{kind}.tflite"
            file.write_bytes(tflite.with_metadata(content, record))
            told = verify(tflite.open_tflite(file), numbers, file)
            entries.append(_entry(file, "tflite", numbers, told))
        if "saved_model" not in formats:
            shutil.rmtree(path)
            entries = entries[1:]
        record["files"] = entries
        files.write_json(folder / "export.json", record)
    return record


def _answers(runners, images):
    """Endpoint -> (classes, confidences), each [N, H, W]."""
    found = {}
    for name, runner in runners.items():
        if name == "serving_default":
            continue
        parts = [
            runner(image=images[i : i + BATCH]) for i in range(0, len(images), BATCH)
        ]
        found[name] = [
            np.concatenate([np.asarray(part[key]) for part in parts])
            for key in ("class", "confidence")
        ]
    return found


def _verify(got, expected, quantize, file):
    verification = {}
    for name, (told, sure) in expected.items():
        same = float(np.mean(got[name][0] == told))
        difference = float(np.abs(got[name][1] - sure).max())
        if same < AGREEMENT[quantize] or not np.isfinite(difference):
            raise UserError(
                f"Endpoint {name!r} of {file.name} departs from Keras: the same class "
                f"at {same:.2%} of the pixels, at least {AGREEMENT[quantize]:.1%} are "
                "asked for. Nothing was written."
            )
        verification[name] = {
            "images": len(told),
            "max_difference": difference,
            "same_class": same,
        }
    return verification


def _entry(path, kind, numbers, verification):
    size = sum(p.stat().st_size for p in [path, *path.rglob("*")] if p.is_file())
    return {
        "file": path.name,
        "format": kind,
        "quantize": numbers,
        "bytes": size,
        "verification": verification,
    }
