"""Where the exits of a finished run look: a strip of Grad-CAM maps."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from tf_mskd import models
from tf_mskd.data.arrays import Source
from tf_mskd.data.decode import fit, read_image, unreadable
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.training.grad_cam import grad_cam
from tf_mskd.utils import figures
from tf_mskd.utils.errors import UserError

COUNT = 6  # images that are drawn unasked
MOST = 100  # rows of a picture
LONGEST = 24  # letters above a picture
OPACITY = 0.7  # of a map of 1 over an image


@dataclasses.dataclass(frozen=True)
class Example:
    """One image to explain.

    Args:
        image: uint8 [H, W, C].
        name: str, number of a test image, or name of a file.
        label: int, or None where it is not known.
    """

    image: np.ndarray
    name: str
    label: int | None = None


def explain_run(
    run: FinishedRun,
    images: Sequence[int | str] = (),
    output: str | os.PathLike = "",
    which: str = "last",
) -> list[list[str]]:
    """Draws what the exits of a run's student and of its teacher look at.

    Args:
        run: the finished run.
        images: numbers of test images and paths of image files; none: see
            `first_of_classes`.
        output: path of the PNG; "" for explain.png in the run folder.
        which: student, "last" or "best" (by the validation split).

    Returns:
        rows of str, the header first: image, truth, and the class that each exit tells
        with its probability.

    Raises:
        UserError: if answers of the run's task are not one class, for images that are
            not there, too many images, a student without maps.
    """
    if not run.task.one_class:
        raise UserError(
            "Maps are drawn for the one class that an exit tells, the task of "
            f"{run.paths.folder} is {run.config.task!r}: where its exits give logits "
            "[B, labels], tf_mskd.grad_cam(student, images, classes=label) shows a "
            "label."
        )
    if len(images) > MOST:
        raise UserError(f"A picture holds {MOST} images at most, got {len(images)}.")
    source = run.source
    chosen = images or first_of_classes(source.test.labels)
    examples = [_example(image, source, run.config) for image in chosen]
    pixels = np.stack([example.image for example in examples])
    student = run.student(which)
    panels = _teacher_panels(run, student, pixels)
    panels += exit_panels("student", student, pixels)
    names = source.class_names
    rows = [_row(i, example, panels, names) for i, example in enumerate(examples)]
    figures.image_grid(output or run.paths.explanation, *zip(*rows, strict=True))
    header = ["image", "truth", *(panel.name for panel in panels)]
    texts = [_texts(i, example, panels, names) for i, example in enumerate(examples)]
    return [header, *texts]


def first_of_classes(labels: np.ndarray, count: int = COUNT) -> list[int]:
    """Places of examples: the first of each class, then the second, and so on.

    Args:
        labels: int [N].
        count: int, places at most.

    Example:
        >>> first_of_classes(np.array([1, 0, 0, 1, 2]), count=4)
        [1, 0, 4, 2]
    """
    rank = np.zeros(len(labels), int)
    for label in np.unique(labels):
        of_label = labels == label
        rank[of_label] = np.arange(of_label.sum())
    return np.lexsort((labels, rank))[:count].tolist()


@dataclasses.dataclass(frozen=True)
class Panel:
    """What one exit tells of some images, and why.

    Args:
        name: str, "student exit 1".
        maps: float32 [N, H, W] in [0, 1] of `grad_cam`, for the class told.
        told: int [N], classes.
        probability: float [N], of these classes.
    """

    name: str
    maps: np.ndarray
    told: np.ndarray
    probability: np.ndarray


def exit_panels(role: str, network: keras.Model, images: np.ndarray) -> list[Panel]:
    """What every exit of a network tells of some images.

    Args:
        role: str, what the network is called.
        network: functional model with a dict of exits.
        images: uint8 [N, H, W, C].
    """
    outputs, panels = network(images, training=False), []
    for name in models.exit_names(network):
        rows = ops.convert_to_numpy(ops.softmax(outputs[name]))
        told = rows.argmax(-1)
        maps = grad_cam(network, images, name, classes=told)
        title = f"{role} {name.replace('_', ' ')}"
        panels.append(Panel(title, maps, told, rows.max(-1)))
    return panels


def _teacher_panels(run, student, images):
    """Those of the run's teacher; none where it cannot be shown, which a line says."""
    try:
        teacher = run.teacher(student)
        return [] if teacher is None else exit_panels("teacher", teacher, images)
    except UserError as error:
        print(f"Without the teacher: {error}")
        return []


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lays a map over an image in grey: yellow where it is low, red where it is high.

    Where the map is 0 the image shows through, where it is 1 it is nearly covered.

    Args:
        image: uint8 [H, W, 1] or [H, W, 3].
        heat: float [H, W] in [0, 1].

    Returns:
        uint8 [H, W, 3].

    Example:
        >>> overlay(np.full((1, 2, 1), 100, np.uint8), np.array([[0.0, 1.0]])).tolist()
        [[[100, 100, 100], [208, 30, 30]]]
    """
    heat = heat[..., None]
    grey = np.mean(image, axis=-1, keepdims=True)
    colour = 255 * np.concatenate([np.ones_like(heat), 1 - heat, 0 * heat], axis=-1)
    opacity = OPACITY * heat
    return np.rint((1 - opacity) * grey + opacity * colour).astype(np.uint8)


def _example(choice, source: Source, config):
    height, width, channels = source.image_shape
    if isinstance(choice, int):
        images, labels = source.test.images, source.test.labels
        if not 0 <= choice < len(images):
            raise UserError(
                f"--images={choice} is no test image: they are 0 to {len(images) - 1}."
            )
        return Example(np.asarray(images[choice]), str(choice), int(labels[choice]))
    try:
        picture = read_image(choice, channels)
    except ValueError as error:
        raise unreadable(choice, error) from error
    if picture.size != (width, height):
        print(
            f"{choice} is {picture.height}x{picture.width}: fitted to "
            f"{height}x{width}, as --resize={config.resize} says."
        )
    centre = config.centre_crop
    pixels = fit(picture, height, width, config.resize, centre=centre)
    return Example(pixels, pathlib.Path(choice).name)


def _row(i, example, panels, names):
    """Pictures of one image by their names, and what stands above them, in a colour."""
    truth = "" if example.label is None else f": {names[example.label]}"
    pictures = {"image": np.repeat(example.image, 3 // example.image.shape[-1], -1)}
    captions = {"image": (_short(f"{example.name}{truth}", LONGEST), "black")}
    for panel in panels:
        pictures[panel.name] = overlay(example.image, panel.maps[i])
        wrong = example.label not in (None, panel.told[i])
        captions[panel.name] = _answer(panel, i, names), "red" if wrong else "black"
    return pictures, captions


def _texts(i, example, panels, names):
    truth = "" if example.label is None else names[example.label]
    return [example.name, truth, *(_answer(panel, i, names) for panel in panels)]


def _answer(panel, i, names):
    sure = f" {100 * panel.probability[i]:.0f} %"
    return _short(names[panel.told[i]], LONGEST - len(sure)) + sure


def _short(text, longest):
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
