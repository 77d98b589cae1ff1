"""A picture of what the exits answer to some test images."""

import os

import keras
import numpy as np

from tf_mskd import models
from tf_mskd.data.arrays import Split
from tf_mskd.tasks import Task
from tf_mskd.utils import figures

EXAMPLES = 4


def draw_examples(
    student: keras.Model,
    task: Task,
    split: Split,
    path: str | os.PathLike,
    kind: str = "logits",
) -> None:
    """Writes images of a split beside the answers to them into one PNG.

    Args:
        student: functional model with a dict of exits.
        task: `Task` whose answers can be looked at, see `Task.panels`.
        split: `Split`; `EXAMPLES` of its images are drawn, evenly spaced.
        path: path of the PNG.
        kind: what the ensemble averages.
    """
    count = min(EXAMPLES, len(split.images))
    places = np.linspace(0, len(split.images) - 1, count).round().astype(int)
    images, labels = split.images[places], split.labels[places]
    made = student(images, training=False)
    outputs = {name: made[name] for name in models.exit_names(student)}
    outputs["ensemble"] = task.vote(outputs, kind)
    answers = {name: np.asarray(value) for name, value in outputs.items()}
    rows = [
        {
            "image": image,
            **task.panels(label, {n: v[i] for n, v in answers.items()}),
        }
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    figures.image_grid(path, rows)
