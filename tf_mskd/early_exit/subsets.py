"""Which exits should vote: every subset of the exits, its figure and its cost."""

import dataclasses
import os
import typing
from collections.abc import Mapping

import keras
import numpy as np

from tf_mskd import models
from tf_mskd.models import exit_names
from tf_mskd.tasks.classification import Classification
from tf_mskd.tasks.ensemble import subsets
from tf_mskd.utils import figures
from tf_mskd.utils.choices import ENSEMBLES
from tf_mskd.utils.errors import UserError

MOST = 6  # exits: 63 subsets
NAME = {  # where that of a subset stands: left above its point
    **{"xytext": (-6, 6), "textcoords": "offset points"},
    **{"ha": "right", "fontsize": 8},
}

Subset = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the network with some exits alone costs.

    Args:
        macs: int, multiply-accumulates of one image.
        params: int, its weights.
    """

    macs: int
    params: int


def check_count(names: list[str]) -> None:
    """Refuses a network of more exits than `MOST`."""
    if len(names) > MOST:
        raise UserError(
            f"--subsets compares the subsets of {MOST} exits at most, the student has "
            f"{len(names)}: train one with fewer, or take --early_exit."
        )


def subset_costs(student: keras.Model) -> dict[Subset, Cost]:
    """The cost of every subset of a student's exits, small subsets first.

    Raises:
        UserError: as `count_macs` does.
    """
    return {
        names: Cost(
            models.count_macs(student, names),
            models.sub_model(student, names).count_params(),
        )
        for names in subsets(exit_names(student))
    }


def subset_hits(
    logits: Mapping[str, typing.Any], labels: typing.Any, kind: str = "logits"
) -> dict[Subset, np.ndarray]:
    """Whether the ensemble of every subset of the exits predicts the label.

    Args:
        logits: dict, exit name -> float array [N, classes].
        labels: int array [N].
        kind: "logits" or "probabilities", what an ensemble averages.

    Returns:
        dict, names of the subset -> bool [N]; small subsets first.

    Example:
        >>> z = {"exit_1": [[2.0, 0.0]], "exit_2": [[0.0, 3.0]]}
        >>> [bool(hits[0]) for hits in subset_hits(z, [1]).values()]
        [False, True, True]
    """
    vote = Classification().vote
    return {
        names: np.argmax(vote({n: logits[n] for n in names}, kind), -1)
        == np.asarray(labels)
        for names in subsets(exit_names(logits))
    }


def pareto_front(costs: typing.Any, values: typing.Any) -> np.ndarray:
    """Which points no other one beats: as cheap and as good, and better in one of both.

    Args:
        costs: float array [P], less is better.
        values: float array [P], more is better.

    Returns:
        bool [P]. Of equal points all or none are on the front.

    Example:
        >>> pareto_front([1, 2, 2, 3], [0.5, 0.7, 0.6, 0.7]).tolist()
        [True, True, False, False]
    """
    costs, values = np.asarray(costs), np.asarray(values)
    cheap, good = costs[:, None] <= costs, values[:, None] >= values
    differs = (costs[:, None] != costs) | (values[:, None] != values)
    return ~(cheap & good & differs).any(axis=0)


def measure_subsets(
    test: tuple[Mapping[str, typing.Any], typing.Any],
    costs: Mapping[Subset, Cost],
    kind: str = "logits",
    validation: tuple[Mapping[str, typing.Any], typing.Any] | None = None,
) -> dict:
    """Measures all subsets of the exits; the validation split chooses one.

    Args:
        test: (dict, exit name -> float array [N, classes] of logits; int array [N] of
            labels).
        costs: dict of `subset_costs`.
        kind: "logits" or "probabilities": the ensemble that sorts and chooses.
        validation: the same as `test` of held-out images; None: nothing is chosen, and
            the test split sorts.

    Returns:
        dict; accuracies are fractions in [0, 1]:
        "ensemble"  `kind`
        "sorted_by" "validation" or "test"
        "subsets"   list, the best first, of equal ones the cheapest: {"exits", "macs",
                    "params", "pareto": whether no other subset is as good for fewer
                    MACs, "test" and "validation": {"logits", "probabilities"}}
        "best"      the first of them: {"exits", "gain": its test accuracy minus that
                    of all exits, "standard_error" of the gain}; None without
                    validation
    """
    splits = {"validation": validation, "test": test}
    hits = {
        split: {k: subset_hits(*given, k) for k in ENSEMBLES}
        for split, given in splits.items()
        if given is not None
    }
    judge = next(iter(hits))
    macs = [cost.macs for cost in costs.values()]
    front = pareto_front(macs, [hits[judge][kind][names].mean() for names in costs])
    rows: list[dict[str, typing.Any]] = [
        {
            "exits": list(names),
            "macs": cost.macs,
            "params": cost.params,
            "pareto": bool(on_front),
            **{
                split: {k: float(table[names].mean()) for k, table in by_kind.items()}
                for split, by_kind in hits.items()
            },
        }
        for (names, cost), on_front in zip(costs.items(), front, strict=True)
    ]
    rows.sort(key=lambda row: (-row[judge][kind], row["macs"]))
    best = None
    if validation is not None:
        best = _against_all(tuple(rows[0]["exits"]), hits["test"][kind])
    return {"ensemble": kind, "sorted_by": judge, "subsets": rows, "best": best}


def _against_all(chosen, hits):
    """The gain of a subset over all exits, image by image."""
    *_, everything = hits.values()
    difference = hits[chosen].astype(float) - everything
    return {
        "exits": list(chosen),
        "gain": float(difference.mean()),
        "standard_error": float(difference.std() / len(difference) ** 0.5),
    }


def draw_subsets(measured: dict, path: str | os.PathLike) -> None:
    """Draws accuracy over MACs of all subsets, a panel for each split, into a PNG.

    Args:
        measured: dict of `measure_subsets`.
        path: path of the file, replaced atomically.
    """
    kind, rows = measured["ensemble"], measured["subsets"]
    splits = [split for split in ("validation", "test") if split in rows[0]]
    front = sorted((r for r in rows if r["pareto"]), key=lambda row: row["macs"])
    groups = {
        "subset": (rows, ".", "tab:grey", 6),
        "one exit": ([r for r in rows if len(r["exits"]) == 1], "^", "tab:green", 7),
        f"Pareto front by {measured['sorted_by']}": (front, "o-", "tab:blue", 10),
    }
    if measured["best"]:
        groups["best by validation"] = (rows[:1], "*", "tab:red", 13)
    with figures.panels(path, len(splits), (7 * len(splits), 5)) as panels:
        for axes, split in zip(panels, splits, strict=True):
            for label, (group, style, colour, size) in groups.items():
                look = {"color": colour, "markersize": size, "fillstyle": "none"}
                if split != measured["sorted_by"]:  # elsewhere it is no front
                    style = style.rstrip("-")
                axes.plot(*_places(group, split, kind), style, **look, label=label)
            for row, *place in zip(front, *_places(front, split, kind), strict=True):
                axes.annotate(numbers(row["exits"]), place, **NAME)
            axes.margins(0.08)
            axes.set(xlabel="multiply-accumulates of an image (million)")
            axes.set(ylabel=f"{split} accuracy (%)")
            axes.set(title=f"{split} split, ensembles by mean {kind}")


def _places(rows, split, kind):
    return [1e-6 * r["macs"] for r in rows], [100 * r[split][kind] for r in rows]


def numbers(names: list[str]) -> str:
    """Writes a subset short.

    Example:
        >>> numbers(["exit_1", "exit_3"])
        '1,3'
    """
    return ",".join(name.removeprefix("exit_") for name in names)
