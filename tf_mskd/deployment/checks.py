"""The arguments of an export, checked before anything is written."""

import os
import pathlib
from collections.abc import Sequence

import keras
import numpy as np

from tf_mskd.models import exit_names
from tf_mskd.utils.errors import UserError, unknown_name


def check_output(output: str | os.PathLike, overwrite: bool = False) -> pathlib.Path:
    """Returns the path of a folder to make.

    Raises:
        UserError: if something is there, unless it is an empty folder, or an earlier
            export and `overwrite` is set.
    """
    output = pathlib.Path(output)
    if not output.name:
        raise UserError("--output is empty: name the folder of the export.")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return output
    if not (output / "export.json").is_file():
        raise UserError(
            f"{output} exists and is no export (it has no export.json): choose another "
            "--output."
        )
    if not overwrite:
        raise UserError(
            f"{output} holds an export already: add --overwrite (overwrite=True), or "
            "choose another --output."
        )
    return output


def checked_names(
    kind: str, names: str | Sequence[str], known: Sequence[str]
) -> list[str]:
    """Returns the names without repetition, or raises `UserError`."""
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    if not names:
        raise UserError(f"Name one {kind} or more of {', '.join(known)}, got none.")
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)
    return names


def checked_exits(student: keras.Model, deepest: int | None) -> list[str]:
    """Returns the exits to export, shallow to deep, or raises `UserError`."""
    if [len(t.shape) for t in student.inputs] != [4]:
        shapes = ", ".join(str(tuple(t.shape)) for t in student.inputs)
        raise UserError(
            f"A student to export takes one image [B, H, W, C], {student.name} reads "
            f"{shapes}: Keras exports it, with student.export(path)."
        )
    names = exit_names(student)
    if not names:
        raise UserError(
            f"{student.name} has no output named exit_1, exit_2, ...: give it exits "
            "with tf_mskd.add_exits."
        )
    if deepest is None:
        return names
    if f"exit_{deepest}" not in names:
        raise unknown_name("exit", f"exit_{deepest}", names)
    return names[: names.index(f"exit_{deepest}") + 1]


def check_images(
    student: keras.Model, images: np.ndarray | None, argument: str, minimum: int
) -> None:
    """Raises `UserError` unless these are enough images that the student takes."""
    shape = tuple(student.input.shape[1:])
    count = 0 if images is None else len(images)
    if images is None or count < minimum:
        raise UserError(
            f"{argument} must be {minimum} real images or more, got {count}."
            + (" Leave int8 out, or use more data." if minimum > 1 else "")
        )
    if images.dtype != "uint8" or images.shape[1:] != shape:
        raise UserError(
            f"{argument} must be uint8 [N, {', '.join(map(str, shape))}] as "
            f"{student.name} takes them, got {images.dtype} {list(images.shape)}."
        )


def check_class_names(
    student: keras.Model, names: list[str], class_names: Sequence[str] | None
) -> None:
    """Raises `UserError` unless there is a name for each class, or none at all."""
    classes = student.output[names[0]].shape[-1]
    if classes == 1:
        raise UserError(
            f"An exported student tells classes apart, the exits of {student.name} "
            "have one logit: Keras exports it, student.export(folder)."
        )
    if class_names is not None and len(class_names) != classes:
        raise UserError(
            f"class_names must name the {classes} classes of {student.name}, got "
            f"{len(class_names)}."
        )
