"""What leaving early does on test examples, under thresholds fixed beforehand."""

import numpy as np

from tf_mskd import models
from tf_mskd.early_exit.calibration import answers, confidences, rates
from tf_mskd.early_exit.thresholds import exits_taken
from tf_mskd.utils import figures
from tf_mskd.utils.tables import as_text, count_text


def macs_so_far(student):
    """Multiply-accumulates of an example that leaves at each exit, by exit name.

    Counted are the layers up to that exit and the heads of all exits before it, which
    had to be asked.
    """
    names = models.exit_names(student)
    return {
        name: models.count_macs(student, names[:k])
        for k, name in enumerate(names, start=1)
    }


def measure(logits, labels, macs, own_macs, exits):
    """Measures early exits on examples that no threshold was fitted to.

    Args:
        logits: dict, exit name -> float array [N, classes].
        labels: int array [N].
        macs: dict of `macs_so_far`.
        own_macs: dict, exit name -> multiply-accumulates of a network with this exit
            alone.
        exits: dict of `exits_file.read_exits`.

    Returns:
        dict; accuracies are percentages, shares those of the MACs of the full pass:
        "rule", "answer", "target"  as calibrated
        "full"        {"accuracy", "mean_macs"} of the full pass
        "early_exit"  {"accuracy", "mean_macs", "macs_share", "exit_rates"} of the
                      chosen thresholds
        "budgeted"    the same and "budget" for each point of the calibrated curve: a
                      batch of examples shares a budget
        "anytime"     exit name -> {"accuracy" of this exit alone, "own_macs",
                      "so_far_accuracy" of what is answered when time runs out behind
                      this exit, "macs"}
    """
    names, labels = models.exit_names(logits), np.asarray(labels)
    temperatures, answer = exits["temperatures"], exits["answer"]
    probs = answers(logits, temperatures, answer)
    right = np.array([p.argmax(-1) == labels for p in probs])
    own = {n: 100 * float(np.mean(logits[n].argmax(-1) == labels)) for n in names}
    costs = np.array([macs[name] for name in names], np.float64)
    sure = confidences(exits["rule"], probs)
    rows = np.arange(len(labels))

    def leaving(thresholds):
        taken = exits_taken(sure, [thresholds[name] for name in names[:-1]])
        mean = float(costs[taken].mean())
        return {
            "accuracy": 100 * float(right[taken, rows].mean()),
            "mean_macs": mean,
            "macs_share": mean / costs[-1],
            "exit_rates": rates(taken, names),
        }

    return {
        **{key: exits[key] for key in ("rule", "answer", "target")},
        "full": {
            "accuracy": 100 * float(right[-1].mean()),
            "mean_macs": float(costs[-1]),
        },
        "early_exit": leaving(exits["thresholds"]),
        "budgeted": [
            {"budget": point["budget"], **leaving(point["thresholds"])}
            for point in exits["curve"]
        ],
        "anytime": {
            name: {
                "accuracy": own[name],
                "own_macs": own_macs[name],
                "so_far_accuracy": 100 * float(right[k].mean()),
                "macs": macs[name],
            }
            for k, name in enumerate(names)
        },
    }


def as_lines(measured):
    """Says what `measure` returns: tables and one line, for the terminal."""
    anytime = [["exit", "alone", "its MACs", measured["answer"], "MACs so far"]]
    for name, row in measured["anytime"].items():
        anytime.append(
            [
                name.replace("_", " "),
                f"{row['accuracy']:.2f}",
                count_text(row["own_macs"]),
                f"{row['so_far_accuracy']:.2f}",
                count_text(row["macs"]),
            ]
        )
    exits = list(measured["anytime"])
    budgeted = [["budget", "accuracy", "mean MACs", "share"]]
    budgeted[0] += [name.replace("_", " ") for name in exits]
    chosen = {"budget": "chosen", **measured["early_exit"]}
    for row in [*measured["budgeted"], chosen]:
        budget = row["budget"]
        budgeted.append(
            [
                budget if isinstance(budget, str) else f"{100 * budget:.1f} %",
                f"{row['accuracy']:.2f}",
                count_text(round(row["mean_macs"])),
                f"{100 * row['macs_share']:.1f} %",
                *(f"{100 * row['exit_rates'][name]:.1f} %" for name in exits),
            ]
        )
    early, full = measured["early_exit"], measured["full"]
    line = (
        f"rule {measured['rule']}, answer by {measured['answer']}: test accuracy "
        f"{early['accuracy']:.2f} % (full pass {full['accuracy']:.2f} %) for "
        f"{100 * early['macs_share']:.1f} % of its MACs "
        f"({count_text(round(early['mean_macs']))})"
    )
    return [as_text(anytime), as_text(budgeted), line]


def draw(measured, path):
    """Draws accuracy over mean MACs into a PNG.

    Args:
        measured: dict of `measure`.
        path: path of the file, replaced atomically.
    """
    with figures.panels(path, 1, (8, 5)) as (axes,):
        _draw(measured, axes)


def _draw(measured, axes):
    mega = 1e-6

    def plot(rows, macs, accuracy, style, **options):
        x, y = zip(*((mega * row[macs], row[accuracy]) for row in rows), strict=True)
        axes.plot(x, y, style, **options)

    anytime, full = measured["anytime"].values(), measured["full"]
    label = f"each example by {measured['rule']}"
    plot(measured["budgeted"], "mean_macs", "accuracy", ".-", label=label)
    label = f"all examples alike, {measured['answer']} so far"
    plot(anytime, "macs", "so_far_accuracy", "s--", label=label)
    plot(anytime, "own_macs", "accuracy", "^", label="one exit alone")
    chosen = [measured["early_exit"]]
    options = {"markersize": 14, "label": "chosen thresholds"}
    plot(chosen, "mean_macs", "accuracy", "*", **options)
    axes.axhline(full["accuracy"], color="grey", linewidth=0.8, label="full pass")
    for name, row in measured["anytime"].items():
        place = (mega * row["own_macs"], row["accuracy"])
        text = name.removeprefix("exit_")
        axes.annotate(text, place, (6, -3), textcoords="offset points", fontsize=8)
    axes.set(xlabel="mean multiply-accumulates of an image (million)")
    axes.set(ylabel="test accuracy (%)", title="test split, thresholds from validation")
