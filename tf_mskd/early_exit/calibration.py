"""Temperatures and thresholds of early exits, fitted to held-out logits."""

import math

import numpy as np

from tf_mskd.early_exit import thresholds as search
from tf_mskd.early_exit.rules import ANSWERS, RULES, answers_so_far, confidence
from tf_mskd.early_exit.temperature import calibration_error, fit_temperature
from tf_mskd.models import exit_names
from tf_mskd.utils.errors import UserError, unknown_name

NUM_BUDGETS = 20


def calibrate(
    logits,
    labels,
    macs,
    rule="best",
    answer="ensemble",
    max_accuracy_drop=None,
    target_macs=None,
):
    """Fits when examples may leave early, so that little accuracy is lost.

    First one temperature per exit, then one threshold per exit and rule.

    Args:
        logits: dict, exit name -> float array [N, classes], of held-out examples; two
            exits or more.
        labels: int array [N].
        macs: dict, exit name -> multiply-accumulates of an example that leaves there,
            with the heads of all exits up to it.
        rule: one of `exit_rules.RULES`, or "best" for the one that does best here.
        answer: "ensemble" (of the exits so far) or "exit" (the exit's own).
        max_accuracy_drop: float >= 0, points of accuracy that may be lost against the
            full pass, the standard error of that loss included; the least MACs win.
        target_macs: float in (0, 1], mean MACs as a share of the full pass; the highest
            accuracy wins. With neither nothing may be lost (a drop of 0).

    Returns:
        dict, the content of exits.json (see `exits_file.read_exits`) without "format"
        and "student". Accuracies are percentages; what is called a share is one of the
        MACs of the full pass, which computes all exits and votes.

    Raises:
        UserError: for an unknown rule or answer, a target out of range, or logits,
            labels and MACs that do not fit together.

    Example:
        >>> sure, unsure, labels = np.eye(2) * 4, np.eye(2) / 4, np.array([0, 1, 1, 0])
        >>> logits = {"exit_1": np.r_[sure, unsure], "exit_2": 4 * np.eye(2)[labels]}
        >>> fitted = calibrate(logits, labels, {"exit_1": 100, "exit_2": 200})
        >>> fitted["validation"]["accuracy"], fitted["validation"]["macs_share"]
        (100.0, 0.75)
    """
    if rule not in (*RULES, "best"):
        raise unknown_name("rule", rule, (*RULES, "best"))
    if answer not in ANSWERS:
        raise unknown_name("answer", answer, ANSWERS)
    goal = check_target(max_accuracy_drop, target_macs)
    _check(logits, labels, macs)
    names, labels = exit_names(logits), np.asarray(labels)
    costs = np.array([macs[name] for name in names], np.float64)
    temperatures = {name: fit_temperature(logits[name], labels) for name in names}
    probs = answers(logits, temperatures, answer)
    right = np.array([p.argmax(-1) == labels for p in probs])
    shares = np.linspace(costs[0] / costs[-1], 1.0, NUM_BUDGETS)
    goals = [search.Goal("target_macs", float(share)) for share in shares]
    fits = {
        name: search.fit(confidences(name, probs), right, costs, [*goals, goal])
        for name in RULES
    }
    full_accuracy = 100 * float(right[-1].mean())
    rank = search.ranking(goal, full_accuracy)
    if rule == "best":
        rule = min(RULES, key=lambda name: rank(*fits[name][-1][:3]))
    *curve, chosen = fits[rule]
    taken = search.exits_taken(confidences(rule, probs), chosen.thresholds)
    met = {name: bool(rank(*fitted[-1][:3])[0] == 0) for name, fitted in fits.items()}
    return {
        "rule": rule,
        "answer": answer,
        "temperatures": temperatures,
        "thresholds": _by_name(chosen, names),
        "target": {goal.kind: goal.value, "met": met[rule]},
        "validation": {
            "full_accuracy": full_accuracy,
            **_measured(chosen),
            "standard_error": chosen.error,
            "examples": len(labels),
            "mean_macs": float(costs[taken].mean()),
            "exit_rates": rates(taken, names),
        },
        "rules": {n: {**_measured(fits[n][-1]), "met": met[n]} for n in RULES},
        "calibration_error": _calibration_errors(logits, labels, temperatures),
        "curve": [
            {"budget": float(b), **_measured(s), "thresholds": _by_name(s, names)}
            for b, s in zip(shares, curve, strict=True)
        ],
    }


def _measured(setting):
    return {"accuracy": setting.accuracy, "macs_share": setting.share}


def _by_name(setting, names):
    return dict(zip(names, [*setting.thresholds, 0.0], strict=True))


def answers(logits, temperatures, answer="ensemble"):
    """The answers at every exit, shallow to deep: list of float32 [N, classes].

    Args:
        logits: dict, exit name -> float [N, classes].
        temperatures: dict, exit name -> float > 0.
        answer: see `exit_rules.answers_so_far`.
    """
    names = exit_names(logits)
    values = [logits[name] for name in names]
    scales = [temperatures[name] for name in names]
    return [
        np.asarray(answers_so_far(values[:k], scales[:k], answer))
        for k in range(1, len(names) + 1)
    ]


def confidences(rule, probs):
    """Confidences at all exits but the last, float32 [K-1, N], of `answers`."""
    return np.array(
        [np.asarray(confidence(rule, probs[:k])) for k in range(1, len(probs))]
    )


def rates(taken, names):
    """The share of the examples that leaves at each exit, by name."""
    counts = np.bincount(taken, minlength=len(names))
    return {name: float(n / len(taken)) for name, n in zip(names, counts, strict=True)}


def check_target(max_accuracy_drop=None, target_macs=None):
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
                "target_macs is a share of the MACs of a full pass, in (0, 1]; got "
                f"{target_macs!r}."
            )
        return search.Goal("target_macs", float(target_macs))
    drop = 0.0 if max_accuracy_drop is None else max_accuracy_drop
    if not (math.isfinite(drop) and drop >= 0):
        raise UserError(
            f"max_accuracy_drop must be points of accuracy, at least 0; got {drop!r}."
        )
    return search.Goal("max_accuracy_drop", float(drop))


def _check(logits, labels, macs):
    names = exit_names(logits)
    if len(names) < 2:
        raise UserError(
            f"To leave early takes two exits or more, got {names}. Train the student "
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
        own = answers(logits, scales, "exit")
        votes = {"ensemble": answers(logits, scales, "ensemble")[-1]}
        everyone = {**dict(zip(temperatures, own, strict=True)), **votes}
        return {name: calibration_error(p, labels) for name, p in everyone.items()}

    before, after = errors(ones), errors(temperatures)
    return {n: {"before": before[n], "after": after[n]} for n in before}
