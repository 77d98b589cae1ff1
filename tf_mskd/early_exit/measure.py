"""What early exits do on test examples, under thresholds fixed beforehand."""

import os
import typing
from collections.abc import Mapping

import keras
import numpy as np

from tf_mskd import models
from tf_mskd.early_exit.outcomes import exit_outcomes
from tf_mskd.utils import figures


def macs_so_far(student: keras.Model) -> dict[str, int]:
    """Multiply-accumulates of an example that exits at each exit, by exit name.

    Counted are the layers up to that exit and the heads of all exits before it, which
    had to be computed.
    """
    names = models.exit_names(student)
    return {
        name: models.count_macs(student, names[:k])
        for k, name in enumerate(names, start=1)
    }


def measure(
    logits: Mapping[str, typing.Any],
    labels: typing.Any,
    macs: Mapping[str, float],
    own_macs: Mapping[str, float],
    exits: dict,
) -> dict:
    """Measures early exits on examples that no threshold was fitted to.

    Args:
        logits: dict, exit name -> float array [N, classes].
        labels: int array [N].
        macs: dict of `macs_so_far`.
        own_macs: dict, exit name -> multiply-accumulates of a network with this exit
            alone.
        exits: dict of `exits_file.read_exits`.

    Returns:
        dict; accuracies are fractions in [0, 1]:
        "criterion", "answer", "target"  as calibrated
        "full"        {"accuracy", "mean_macs"} of the full pass
        "early_exit"  {"accuracy", "mean_macs", "macs_fraction" of the full pass,
                      "exit_rates"} of the chosen thresholds
        "budgeted"    the same and "budget" for each point of the calibrated curve: a
                      batch of examples shares a budget
        "anytime"     exit name -> {"accuracy" of this exit alone, "own_macs",
                      "so_far_accuracy" of what is returned when time runs out behind
                      this exit, "macs"}
    """
    names, labels = models.exit_names(logits), np.asarray(labels)
    outcomes = exit_outcomes(
        logits, labels, macs, exits["temperatures"], exits["answer"]
    )
    so_far = outcomes.correct.mean(axis=1)

    def measured(thresholds):
        early = [thresholds[name] for name in names[:-1]]
        return outcomes.measure(exits["criterion"], early)

    return {
        **{key: exits[key] for key in ("criterion", "answer", "target")},
        "full": {
            "accuracy": outcomes.full_accuracy,
            "mean_macs": float(outcomes.macs[-1]),
        },
        "early_exit": measured(exits["thresholds"]),
        "budgeted": [
            {"budget": point["budget"], **measured(point["thresholds"])}
            for point in exits["curve"]
        ],
        "anytime": {
            name: {
                "accuracy": float(np.mean(logits[name].argmax(-1) == labels)),
                "own_macs": own_macs[name],
                "so_far_accuracy": float(accuracy),
                "macs": macs[name],
            }
            for name, accuracy in zip(names, so_far, strict=True)
        },
    }


def curves(measured: dict) -> dict[str, tuple[list[float], list[float]]]:
    """Returns the series of the figure: label -> (million MACs, percent)."""

    def series(rows, macs, accuracy):
        x = [1e-6 * row[macs] for row in rows]
        return x, [100 * row[accuracy] for row in rows]

    anytime, answer = measured["anytime"].values(), measured["answer"]
    return {
        f"each example by {measured['criterion']}": series(
            measured["budgeted"], "mean_macs", "accuracy"
        ),
        f"all examples alike, {answer} so far": series(
            anytime, "macs", "so_far_accuracy"
        ),
        "one exit alone": series(anytime, "own_macs", "accuracy"),
        "chosen thresholds": series([measured["early_exit"]], "mean_macs", "accuracy"),
    }


def draw(measured: dict, path: str | os.PathLike) -> None:
    """Draws accuracy over mean MACs into a PNG.

    Args:
        measured: dict of `measure`.
        path: path of the file, replaced atomically.
    """
    with figures.panels(path, 1, (8, 5)) as (axes,):
        drawn = curves(measured)
        for style, (label, (x, y)) in zip(
            (".-", "s--", "^", "*"), drawn.items(), strict=True
        ):
            size = 14 if style == "*" else None
            axes.plot(x, y, style, markersize=size, label=label)
        full = 100 * measured["full"]["accuracy"]
        axes.axhline(full, color="grey", linewidth=0.8, label="full pass")
        for name, *place in zip(
            measured["anytime"], *drawn["one exit alone"], strict=True
        ):
            text = name.removeprefix("exit_")
            axes.annotate(text, place, (6, -3), textcoords="offset points", fontsize=8)
        axes.set(xlabel="mean multiply-accumulates of an image (million)")
        axes.set(ylabel="test accuracy (%)")
        axes.set(title="test split, thresholds from validation")
