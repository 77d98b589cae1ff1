"""Runs side by side: one table, and curves where people would rather look.

    python -m tf_mskd.report --run_dirs=runs/digits/ce,runs/digits/mskd --output=report

Prints the table; with --output also writes table.md, runs.json and curves.png there.
"""

import pathlib

from absl import flags

from tf_mskd.runs import cli
from tf_mskd.runs.run_folder import read_result
from tf_mskd.utils import figures, files
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.tables import as_text, count_text

RUN_DIRS = flags.DEFINE_list("run_dirs", [], "Folders of finished runs; required.")
OUTPUT = flags.DEFINE_string("output", "", "Folder for table, numbers and curves.")

VOTES = {
    "ensemble": "ensemble",
    "mean_probabilities": "probs",
    "fitted": "fitted",
}


def read_runs(run_dirs):
    """Reads result.json and metrics.jsonl of finished runs.

    Args:
        run_dirs: list of str or path.

    Returns:
        dict, folder name -> {"result": dict, "history": list of dict}.

    Raises:
        UserError: if a folder holds no finished run, or a damaged one.
    """
    runs = {}
    for folder in map(pathlib.Path, run_dirs):
        if not (folder / "result.json").is_file():
            raise UserError(f"{str(folder)!r} holds no finished run (no result.json).")
        runs[folder.name] = {
            "result": read_result(folder / "result.json"),
            "history": _read_history(folder / "metrics.jsonl"),
        }
    if not runs:
        raise UserError("--run_dirs is empty: name the folders to compare.")
    return runs


def _read_history(path):
    history = files.read_json_lines(path)
    for number, epoch in enumerate(history, start=1):
        needed = [epoch.get("epoch"), epoch.get(_accuracy(history))]
        if not all(isinstance(value, int | float) for value in needed):
            raise UserError(
                f"{path} is damaged: line {number} is not that of an epoch."
            )
    if not history:
        raise UserError(f"{path} is damaged: it holds no epoch.")
    return history


def _accuracy(history):
    """The accuracy to draw: on the validation split, or else on the training images."""
    held_out = "val_mean_logits_accuracy"
    return held_out if held_out in history[0] else "ensemble_accuracy"


def rows_of(runs):
    """Returns the table as a list of rows of str, the header first.

    Accuracies are test top-1 in percent at the last epoch; a network with one exit has
    no vote, so its ensemble columns stay empty. MACs are those of the whole network.
    """
    exits = sorted(
        {n for r in runs.values() for n in r["result"]["macs"]} - {"ensemble"}
    )
    votes = [v for v in VOTES if any(v in r["result"]["test"] for r in runs.values())]
    header = ["run", *(name.replace("_", " ") for name in exits)]
    header += [VOTES[vote] for vote in votes] + ["params", "MACs", "seconds"]
    rows = [header]
    for name, run in runs.items():
        result, test = run["result"], run["result"]["test"]
        single = sum(e in test for e in exits) == 1
        row = [name, *(_percent(test.get(e)) for e in exits)]
        row += [_percent(None if single else test.get(vote)) for vote in votes]
        row += [count_text(result["params"]), count_text(result["macs"]["ensemble"])]
        rows.append([*row, f"{result['seconds']:.0f}"])
    return rows


def draw(runs, path):
    """Draws accuracy over the epochs, and over the exits, into one PNG.

    Args:
        runs: see `read_runs`.
        path: path of the file, replaced atomically.
    """
    with figures.panels(path, 2, (13, 5)) as (left, right):
        _draw(runs, left, right)


def _draw(runs, left, right):
    from matplotlib import colormaps

    if len(runs) > 10:  # the default colours would repeat
        for axes in (left, right):
            axes.set_prop_cycle(color=colormaps["tab20"].colors)
    for name, run in runs.items():
        history, test = run["history"], run["result"]["test"]
        key = _accuracy(history)
        epochs = [epoch["epoch"] for epoch in history]
        left.plot(epochs, [100 * epoch[key] for epoch in history], label=name)
        exits = sorted(n for n in test if n.startswith("exit_"))
        places = [int(n.removeprefix("exit_")) for n in exits]
        (line,) = right.plot(places, [test[n] for n in exits], "o-", label=name)
        if len(exits) > 1:
            votes = [test["ensemble"], test.get("fitted", test["ensemble"])]
            right.plot(max(places) + 0.5, votes[0], "s", color=line.get_color())
            right.plot(max(places) + 0.5, votes[1], "^", color=line.get_color())
    left.set(xlabel="epoch", ylabel="accuracy of the vote (%)")
    left.set_title("validation split" if key.startswith("val_") else "training images")
    right.set(xlabel="exit (square: plain ensemble, triangle: fitted weights)")
    right.set(ylabel="test accuracy (%)", title="test split, last epoch")
    right.xaxis.get_major_locator().set_params(integer=True)


def write(runs, output):
    """Writes table.md, runs.json (results and histories) and curves.png to a folder."""
    output = files.make_folder(output)
    files.write_text(output / "table.md", as_text(rows_of(runs)) + "\n")
    files.write_json(output / "runs.json", runs)
    draw(runs, output / "curves.png")


def main():
    """Prints the table and writes the files."""
    runs = read_runs(RUN_DIRS.value)
    print(as_text(rows_of(runs)))
    if OUTPUT.value:
        write(runs, OUTPUT.value)
        print(f"wrote table.md, runs.json and curves.png to {OUTPUT.value}")


def _percent(value):
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    cli.run(main, __doc__)
