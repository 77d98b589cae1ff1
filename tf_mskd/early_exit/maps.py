"""Early exits of networks that answer at every position of an image."""

import os
import typing
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tf_mskd.tasks import Task
from tf_mskd.utils import figures
from tf_mskd.utils.units import scaled, shown

THRESHOLDS = (0.0, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 2.0)


def measure_maps(
    batches: Iterable[tuple[Mapping[str, np.ndarray], np.ndarray]],
    task: Task,
    macs: Mapping[str, float],
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, typing.Any]:
    """Measures early exits under several thresholds, batch by batch.

    The answer at exit k is the vote of exits 1..k. By image: an image exits at the
    first exit where the mean over its positions of the confidence reaches the
    threshold, and stages behind are not computed. By pixel: each position keeps the
    first answer that reaches it; nothing is saved, it tells what the confidence is
    worth.

    Args:
        batches: of (dict, exit name -> array [n, h, w, C]; labels [n, ...]).
        task: `Task` with a confidence.
        macs: exit name -> multiply-accumulates of an image that exits there, see
            `measure.macs_so_far`.
        thresholds: floats; 0 exits at once, above 1 never.

    Returns:
        dict: "figure" the name of the task's main figure, and "thresholds", a list of
        dicts "threshold", "macs_fraction" and "exit_rates" of the exits by image,
        "image" and "pixel", the main figure of each.
    """
    names = list(macs)
    costs = np.array([macs[name] for name in names], np.float64)
    found = [_Point(task, threshold, len(names)) for threshold in thresholds]
    for outputs, labels in batches:
        answers = [
            np.asarray(task.vote({n: outputs[n] for n in names[: k + 1]}))
            for k in range(len(names))
        ]
        surety = np.stack([np.asarray(task.confidence(z)) for z in answers])
        for point in found:
            point.update(np.stack(answers), surety, labels)
    return {
        "figure": task.metric,
        "thresholds": [point.result(task.metric, names, costs) for point in found],
    }


def draw_maps(
    measured: Mapping[str, typing.Any], unit: str, path: str | os.PathLike
) -> None:
    """Draws the figure against the cost of the exits by image into one PNG."""
    points = measured["thresholds"]
    costs = [100 * point["macs_fraction"] for point in points]
    with figures.panels(path, 1, (6, 4.5)) as (axes,):
        values = [scaled(point["image"], unit) for point in points]
        axes.plot(costs, values, "o-", label="images exit early")
        axes.set(xlabel="multiply-accumulates (% of the full pass)")
        axes.set(ylabel=f"{measured['figure']} {f'({unit})' if unit else ''}".strip())


def maps_rows(measured: Mapping[str, typing.Any], unit: str) -> list[list[str]]:
    """Returns the measurement as a table, the header first."""
    names = list(measured["thresholds"][0]["exit_rates"])
    exits = [name.replace("_", " ") for name in names]
    figure = measured["figure"]
    rows = [["threshold", *exits, "MACs", f"{figure} by image", f"{figure} by pixel"]]
    for point in measured["thresholds"]:
        rates = [f"{100 * point['exit_rates'][name]:.0f} %" for name in names]
        threshold = "never" if point["threshold"] > 1 else f"{point['threshold']:g}"
        values = [shown(point[by], unit) for by in ("image", "pixel")]
        cost = f"{100 * point['macs_fraction']:.1f} %"
        rows.append([threshold, *rates, cost, *values])
    return rows


class _Point:
    """What is measured under one threshold."""

    def __init__(self, task, threshold, exits):
        self._threshold, self._counts = threshold, np.zeros(exits, np.int64)
        self._image = task.figures()
        self._pixel = task.figures()

    def update(self, answers, surety, labels):
        """Adds a batch: answers [K, n, h, w, C], their confidences [K, n, h, w]."""
        by_image = self._first(surety.mean((2, 3)))  # [n]
        rows = np.arange(len(by_image))
        self._counts += np.bincount(by_image, minlength=len(self._counts))
        self._image.update(labels, answers[by_image, rows])
        by_pixel = self._first(surety)[None, ..., None]
        kept = np.take_along_axis(answers, by_pixel, axis=0)[0]
        self._pixel.update(labels, kept)

    def _first(self, surety):
        """The first exit that is sure enough, the last one where none is."""
        is_sure = surety >= self._threshold
        is_sure[-1] = True
        return is_sure.argmax(0)

    def result(self, figure, names, costs):
        """See `measure_maps`."""
        rates = self._counts / max(1, self._counts.sum())
        return {
            "threshold": self._threshold,
            "macs_fraction": float(rates @ costs / costs[-1]),
            "exit_rates": dict(zip(names, map(float, rates), strict=True)),
            "image": self._image.results()[figure],
            "pixel": self._pixel.results()[figure],
        }
