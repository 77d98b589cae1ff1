"""Compares two files of losses and weights that `tools/golden.py` wrote.

    python tools/compare_losses.py --old=tests/golden/losses.json --new=/tmp/losses.json

One line a case: the first step whose loss differs, the largest relative difference of
the losses, that of the norm of the weights, and whether all bits of the weights are
equal. Ends with an error where a difference is beyond --rtol, or where files of the
same machine differ at all.
"""

import pathlib
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tf_mskd.runs import cli
from tf_mskd.utils import files  # noqa: E402
from tf_mskd.utils.errors import UserError  # noqa: E402
from tf_mskd.utils.tables import as_text  # noqa: E402

RTOL = 1e-5


def define():
    """Defines the flags of the tool."""
    flags.DEFINE_string("old", "tests/golden/losses.json", "File to compare with.")
    flags.DEFINE_string("new", "", "File that is compared; required.")
    flags.DEFINE_float("rtol", RTOL, "Largest relative difference.", lower_bound=0)


def read(path):
    """Reads a file of `tools/golden.py`.

    Raises:
        UserError: if it is none.
    """
    record = files.read_json(pathlib.Path(path))
    if not (isinstance(record, dict) and isinstance(record.get("cases"), dict)):
        raise UserError(f"{path} is no file of tools/golden.py: write one with it.")
    return record


def compare(old, new, rtol=RTOL):
    """Compares two records.

    Args:
        old, new: dicts, as `read` returns.
        rtol: float, the largest relative difference.

    Returns:
        (rows of a table, names of the cases that have moved).
    """
    exact = old["machine"] == new["machine"]
    rows = [("case", "first step", "losses", "norm", "weights")]
    moved = []
    for name in dict.fromkeys([*old["cases"], *new["cases"]]):
        one, two = (record["cases"].get(name) for record in (old, new))
        if one is None or two is None:
            rows.append((name, "", "", "", "only in the " + ("new" if two else "old")))
            moved.append(name)
            continue
        gaps = [_gap(a, b) for a, b in zip(one["losses"], two["losses"], strict=True)]
        first = next((str(k) for k, gap in enumerate(gaps, start=1) if gap), "")
        norm, same = _gap(one["norm"], two["norm"]), one["sha256"] == two["sha256"]
        bits = "equal" if same else "differ"
        rows.append((name, first, f"{max(gaps):.1e}", f"{norm:.1e}", bits))
        if max(*gaps, norm) > rtol or (exact and not same):
            moved.append(name)
    return rows, moved


def _gap(old, new):
    return abs(new - old) / max(abs(old), 1e-30)


def main():
    """Prints the table."""
    if not flags.FLAGS.new:
        raise UserError("--new is empty: name the file to compare.")
    old, new = read(flags.FLAGS.old), read(flags.FLAGS.new)
    rows, moved = compare(old, new, flags.FLAGS.rtol)
    print(as_text(rows))
    if moved:
        raise UserError(f"The numbers have moved: {'; '.join(moved)}.")


if __name__ == "__main__":
    cli.run(main, define, __doc__)
