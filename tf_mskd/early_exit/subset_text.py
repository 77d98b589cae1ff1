"""Subsets of exits and their agreement as tables; percent are for people alone."""

from collections.abc import Mapping

from tf_mskd.early_exit.subsets import numbers
from tf_mskd.utils.choices import ENSEMBLES
from tf_mskd.utils.tables import as_text, count_text
from tf_mskd.utils.units import PERCENT, shown


def subset_lines(measured: dict) -> list[str]:
    """Returns what `subsets.measure_subsets` has measured as a table and a line."""
    kind, rows = measured["ensemble"], measured["subsets"]
    splits = [split for split in ("validation", "test") if split in rows[0]]
    kinds = sorted(ENSEMBLES, key=lambda other: other != kind)
    columns = [(split, k) for split in splits for k in kinds]
    header = ["exits", "MACs", "parameters"]
    table = [[*header, *(f"{split}, {k}" for split, k in columns), "Pareto"]]
    for row in rows:
        table.append(
            [
                numbers(row["exits"]),
                count_text(row["macs"]),
                count_text(row["params"]),
                *(_percent(row[split][k]) for split, k in columns),
                "*" if row["pareto"] else "",
            ]
        )
    judge = f"{measured['sorted_by']} split, ensembles by mean {kind}"
    told = f"sorted by the {judge}; *: there no other subset is better for as few MACs"
    return [as_text(table), f"{told}\n{_choice(measured)}"]


def _choice(measured):
    best, kind, rows = measured["best"], measured["ensemble"], measured["subsets"]
    if best is None:
        return (
            "no subset is chosen: the run held no validation split out, and the best "
            f"of {len(rows)} on the test split would flatter itself"
        )
    first = rows[0]
    everything = max(rows, key=lambda row: len(row["exits"]))
    chosen = (
        f"best by validation: exits {numbers(best['exits'])}: validation "
        f"{_percent(first['validation'][kind])}, test {_percent(first['test'][kind])}"
    )
    if first is everything:
        return f"{chosen}; these are all exits"
    share = first["macs"] / everything["macs"]
    return (
        f"{chosen} (all exits {_percent(everything['test'][kind])}, standard error of "
        f"the difference {100 * best['standard_error']:.2f}) for {100 * share:.1f} % "
        "of the MACs of all exits"
    )


def agreement_lines(found: Mapping[str, dict]) -> list[str]:
    """Returns what `agreement.agreement` has found of some networks as tables.

    Args:
        found: role of the network, such as "student" -> dict of `agreement`.
    """
    exits = max((list(one["only_right"]) for one in found.values()), key=len)
    table = [["test images where", *found]]

    def add(what, values):
        table.append([what, *("" if v is None else _percent(v) for v in values)])

    networks = found.values()
    add("all exits are right", [one["all_right"] for one in networks])
    add("no exit is right", [one["none_right"] for one in networks])
    add(
        "one exit alone is right", [sum(one["only_right"].values()) for one in networks]
    )
    for name in exits:
        values = [one["only_right"].get(name) for one in networks]
        add(f"- {_spoken(name)}", values)
    add("some exit is right (oracle)", [one["oracle"] for one in networks])
    return [as_text(table), *(_matrix(*item) for item in found.items())]


def _matrix(role, one):
    pairs = one["disagreement"]
    header = [f"{role}: two exits disagree", *map(_spoken, pairs)]
    rows = [[_spoken(n), *map(_percent, pairs[n].values())] for n in pairs]
    return as_text([header, *rows])


def _spoken(name):
    return name.replace("_", " ")


def _percent(value):
    return shown(value, PERCENT)
