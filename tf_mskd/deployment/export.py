"""`export_student`: a folder of files, each verified when it is written."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from importlib import metadata

import keras
import numpy as np

from tf_mskd.deployment import checks
from tf_mskd.models import sub_model
from tf_mskd.models.saving import fingerprint
from tf_mskd.utils import files
from tf_mskd.utils.choices import FORMATS, QUANTIZATIONS
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.version import VERSION

FORMAT = 2  # of export.json and the metadata; 1 had "rule" and "proof"
MIN_CALIBRATION = 200  # images that the ranges of int8 come from, at least


def export_student(
    student: keras.Model,
    output: str | os.PathLike,
    images: np.ndarray,
    *,
    formats: Sequence[str] = FORMATS,
    quantize: Sequence[str] = ("none",),
    deepest_exit: int | None = None,
    exits_file: str | os.PathLike | None = None,
    calibration_images: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> dict:
    """Writes a student as files that run where this library is not installed.

    saved_model/            all endpoints; "serving_default" is "ensemble"
    student_float32.tflite  all endpoints but early_exit_batched; also _float16,
                            _dynamic and _int8, if requested
    export.json             what each file is, its bytes and its verification

    Endpoints, see `deployment.endpoints`: ensemble, exit_1 .. exit_K, early_exit,
    early_exit_batched. Every endpoint of every file is run on `images` and compared
    with Keras; the folder appears only if all agree.

    Args:
        student: functional model of one image input, whose output is a dict of exits.
            One of mixed precision is rebuilt in float32.
        output: str or path of the folder to make.
        images: uint8 [N, H, W, C], real images for the verification; 200 are good.
        formats: some of "saved_model" and "tflite".
        quantize: some of "none", "float16", "dynamic" and "int8": the TFLite files.
        deepest_exit: int k, the deepest exit to export; deeper exits and their layers
            are dropped. None keeps all.
        exits_file: path of the exits.json that `tf_mskd.calibrate` wrote for this
            student. Without it no image exits early unless a threshold is passed.
        calibration_images: uint8 [N, H, W, C], 200 real training images or more; needed
            for "int8".
        class_names: list of str for the metadata, or None.
        overwrite: bool, whether to take the place of an earlier export.

    Returns:
        dict, the content of export.json.

    Raises:
        UserError: if an argument does not fit, a layer cannot be converted, or a file
            departs from Keras (see `deployment.verification`). Nothing is left behind.

    Example:
        >>> student = tf_mskd.load_model("runs/oto")  # doctest: +SKIP
        >>> tf_mskd.export_student(student, "exports/oto", images)  # doctest: +SKIP
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            "An export needs Keras on TensorFlow, this is Keras on "
            f"{keras.backend.backend()}: set KERAS_BACKEND=tensorflow."
        )
    checks.check_output(output, overwrite)
    formats = checks.checked_names("format", formats, FORMATS)
    quantize = checks.checked_names("quantization", quantize, QUANTIZATIONS)
    if "tflite" not in formats and quantize != ["none"]:
        raise UserError(
            f"A quantization, here {', '.join(quantize)}, is for TFLite files: add "
            "tflite to the formats, or leave it out."
        )
    names = checks.checked_exits(student, deepest_exit)
    checks.check_images(student, images, "images", 1)
    if "int8" in quantize:
        checks.check_images(
            student, calibration_images, "calibration_images", MIN_CALIBRATION
        )
    checks.check_class_names(student, names, class_names)

    from tf_mskd.deployment import tflite
    from tf_mskd.deployment.endpoints import Endpoints
    from tf_mskd.deployment.precision import in_float32
    from tf_mskd.deployment.verification import Reference
    from tf_mskd.early_exit.policy import load_policy
    from tf_mskd.training.batch_norm import fold_batch_norms

    if "tflite" in formats:
        tflite.interpreter_class()
    policy = load_policy(student, names, exits_file)
    kept = in_float32(sub_model(student, names))
    reference = Reference(Endpoints(kept, names, policy), images)
    endpoints = Endpoints(fold_batch_norms(kept, for_good=True), names, policy)
    record = _record(student, kept, endpoints, class_names)
    with writing(output, overwrite) as folder:
        record["files"] = _write(
            folder, endpoints, record, reference, formats, quantize, calibration_images
        )
        files.write_json(folder / "export.json", record)
    return record


def _write(folder, endpoints, record, reference, formats, quantize, calibration_images):
    """Writes and verifies all files; returns their entries for export.json."""
    from tf_mskd.deployment import saved_model, tflite
    from tf_mskd.deployment.verification import verify

    entries = []

    def add(path, kind, numbers, runners):
        verification = verify(runners, reference, numbers, path.name)
        size = sum(p.stat().st_size for p in [path, *path.rglob("*")] if p.is_file())
        entries.append(
            {
                "file": path.name,
                "format": kind,
                "quantize": numbers,
                "bytes": size,
                "verification": verification,
            }
        )

    path = folder / "saved_model"
    saved_model.write_saved_model(endpoints, path, record)
    if "saved_model" in formats:
        add(path, "saved_model", "none", saved_model.open_saved_model(path))
    for numbers in quantize if "tflite" in formats else []:
        content = tflite.convert(path, endpoints, numbers, calibration_images)
        content = tflite.with_metadata(content, record)
        file = "float32" if numbers == "none" else numbers
        file = folder / f"student_{file}.tflite"
        file.write_bytes(content)
        add(file, "tflite", numbers, tflite.open_tflite(file))
    if "saved_model" not in formats:
        shutil.rmtree(path)
    return entries


def _record(student, kept, endpoints, class_names):
    """The metadata that every file holds."""
    policy = endpoints.policy
    return {
        "format": FORMAT,
        "model": student.name,
        "student": fingerprint(student),
        "params": kept.count_params(),
        "image": {"shape": list(kept.input.shape[1:]), "dtype": "uint8"},
        "exits": endpoints.names,
        "endpoints": list(endpoints.functions()),
        "criterion": policy.criterion,
        "answer": policy.answer,
        "temperatures": policy.temperatures,
        "thresholds": policy.thresholds,
        "class_names": list(class_names) if class_names else None,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Returns the versions that wrote a file, for its metadata."""
    others = {name: metadata.version(name) for name in ("tensorflow", "keras")}
    return {"tf_mskd": VERSION, **others}


@contextlib.contextmanager
def writing(output: str | os.PathLike, overwrite: bool) -> Iterator[pathlib.Path]:
    """Yields a new folder beside `output` and moves it there on success.

    Raises:
        UserError: if `output` cannot be made or is none to replace.
    """
    output = checks.check_output(output, overwrite)
    new, old = (output.with_name(f".{output.name}.{os.getpid()}.{s}") for s in "no")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        yield new
        if output.exists():
            os.replace(output, old)
        os.replace(new, output)
    except OSError as error:
        if old.exists() and not output.exists():
            os.replace(old, output)
        reason = error.strerror or error
        kept = " The previous export is unchanged." if output.exists() else ""
        raise UserError(f"Cannot write {output}: {reason}.{kept}") from error
    finally:
        for path in (new, old):
            shutil.rmtree(path, ignore_errors=True)
