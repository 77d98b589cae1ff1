"""Temperatures and thresholds of early exits, fitted to held-out logits."""

import math
import typing
from collections.abc import Mapping

import numpy as np

from tf_mskd.early_exit import thresholds as search
from tf_mskd.early_exit.criteria import ANSWERS, CRITERIA
from tf_mskd.early_exit.outcomes import exit_outcomes, predictions
from tf_mskd.early_exit.temperature import calibration_error, fit_temperature
from tf_mskd.models import exit_names
from tf_mskd.utils.errors import UserError, unknown_name

NUM_BUDGETS = 20


def calibrate(
    logits: Mapping[str, typing.Any],
    labels: typing.Any,
    macs: Mapping[str, float],
    criterion: str = "best",
    answer: str = "ensemble",
    max_accuracy_drop: float | None = None,
    target_macs: float | None = None,
) -> dict:
    """Fits an exit policy under which little accuracy is lost.

    First one temperature per exit, then one threshold per exit and criterion.

    Args:
        logits: dict, exit name -> float array [N, classes], of held-out examples; two
            exits or more.
        labels: int array [N].
        macs: dict, exit name -> multiply-accumulates of an example that exits there,
            with the heads of all exits up to it.
        criterion: one of `criteria.CRITERIA`, or "best" for the best one here.
        answer: "ensemble" (of the exits so far) or "exit" (the exit's own).
        max_accuracy_drop: float >= 0, percentage points of accuracy that may be lost
            against the full pass, the standard error of that loss included; the least
            MACs win.
        target_macs: float in (0, 1], mean MACs as a fraction of the full pass; the
            highest accuracy wins. With neither nothing may be lost (a drop of 0).

    Returns:
        dict, the content of exits.json (see `exits_file.read_exits`) without "format"
        and "student". Accuracies are fractions in [0, 1]; "macs_fraction" and "budget"
        are fractions of the MACs of the full pass, which computes all exits; "target"
        is the argument that was given.

    Raises:
        UserError: for an unknown criterion or answer, a target out of range, or logits,
            labels and MACs that do not fit together.
    """
    if criterion not in (*CRITERIA, "best"):
        raise unknown_name("exit criterion", criterion, [*CRITERIA, "best"])
    if answer not in ANSWERS:
        raise unknown_name("answer", answer, ANSWERS)
    goal = check_target(max_accuracy_drop, target_macs)
    _check(logits, labels, macs)
    names = exit_names(logits)
    temperatures = {name: fit_temperature(logits[name], labels) for name in names}
    outcomes = exit_outcomes(logits, labels, macs, temperatures, answer)
    budgets = np.linspace(outcomes.macs[0] / outcomes.macs[-1], 1.0, NUM_BUDGETS)
    goals = [search.Goal("target_macs", float(budget)) for budget in budgets]
    goals.append(goal)
    fits = {
        name: search.fit(
            outcomes.confidences(name), outcomes.correct, outcomes.macs, goals
        )
        for name in CRITERIA
    }
    rank = search.ranking(goal, outcomes.full_accuracy)
    if criterion == "best":
        criterion = min(CRITERIA, key=lambda name: rank(*fits[name][-1][:3]))
    *curve, chosen = fits[criterion]
    met = {name: bool(rank(*fitted[-1][:3])[0] == 0) for name, fitted in fits.items()}
    asked = target_macs if target_macs is not None else max_accuracy_drop or 0.0
    return {
        "criterion": criterion,
        "answer": answer,
        "temperatures": temperatures,
        "thresholds": _by_name(chosen, names),
        "target": {goal.kind: asked, "met": met[criterion]},
        "validation": {
            "full_accuracy": outcomes.full_accuracy,
            **outcomes.measure(criterion, chosen.thresholds),
            **_measured(chosen),  # to the last digit as in "criteria"
            "standard_error": chosen.error,
            "examples": len(labels),
        },
        "criteria": {n: {**_measured(fits[n][-1]), "met": met[n]} for n in CRITERIA},
        "calibration_error": _calibration_errors(logits, labels, temperatures),
        "curve": [
            {"budget": float(b), **_measured(s), "thresholds": _by_name(s, names)}
            for b, s in zip(budgets, curve, strict=True)
        ],
    }


def _measured(setting):
    return {"accuracy": setting.accuracy, "macs_fraction": setting.macs_fraction}


def _by_name(setting, names):
    return dict(zip(names, [*setting.thresholds, 0.0], strict=True))


def check_target(
    max_accuracy_drop: float | None = None, target_macs: float | None = None
) -> search.Goal:
    """Returns the `thresholds.Goal` of the two arguments of `calibrate`.

    Raises:
        UserError: if both are given, or one is out of range.
    """
    if max_accuracy_drop is not None and target_macs is not None:
        raise UserError(
            "max_accuracy_drop and target_macs are two targets: give one of them."
        )
    if target_macs is not None:
        if not 0 < target_macs <= 1:
            raise UserError(
                "target_macs must be a fraction of the MACs of a full pass, in (0, 1]; "
                f"got {target_macs!r}."
            )
        return search.Goal("target_macs", float(target_macs))
    drop = 0.0 if max_accuracy_drop is None else max_accuracy_drop
    if not (math.isfinite(drop) and drop >= 0):
        raise UserError(
            "max_accuracy_drop must be percentage points of accuracy, at least 0; got "
            f"{drop!r}."
        )
    return search.Goal("max_accuracy_drop", drop / 100)


def _check(logits, labels, macs):
    names = exit_names(logits)
    if len(names) < 2:
        raise UserError(
            f"Early exits need a student with two exits or more, got {names}. Train it "
            "with more --exits."
        )
    if set(macs) != set(names):
        raise UserError(
            f"macs must be given for {', '.join(names)}, got {', '.join(macs)}."
        )
    for name in names:
        z = np.asarray(logits[name])
        if z.ndim != 2 or z.shape[0] != len(labels) or not len(labels):
            raise UserError(
                f"Logits of {name!r} must be [N, classes] for {len(labels)} labels, "
                f"N > 0; got {z.shape}."
            )
        if not np.isfinite(z).all():
            raise UserError(
                f"Logits of {name!r} are not all finite: the student has diverged."
            )


def _calibration_errors(logits, labels, temperatures):
    ones = dict.fromkeys(temperatures, 1.0)

    def errors(scales):
        alone = predictions(logits, scales, "exit")
        probs = dict(zip(temperatures, alone, strict=True))
        probs["ensemble"] = predictions(logits, scales, "ensemble")[-1]
        return {name: calibration_error(p, labels) for name, p in probs.items()}

    before, after = errors(ones), errors(temperatures)
    return {n: {"before": before[n], "after": after[n]} for n in before}
