"""Run folders with made-up results, for tests of reports."""

import contextlib
import dataclasses
import json

from tests.support import PLAIN
from tf_mskd.runs.config import Config
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.runs.result import write_result
from tf_mskd.utils import figures
from tf_mskd.utils.run_paths import RunPaths

EXITS = {"exit_1": 0.5, "exit_10": 0.625, "exit_2": 0.75, "ensemble": 0.75}


def finished(folder, test, result=None, **epochs):
    """Writes a run folder with a test table, other fields of its result, and logs.

    Args:
        folder: path, made.
        test: figures of the test split.
        result: fields of `Result` -> values.
        **epochs: name in the logs -> its values, epoch by epoch.
    """
    folder.mkdir(parents=True)
    macs = {name: 10 for name in test if name.startswith("exit")} | {"ensemble": 2000}
    values = {"test": test, "macs": macs, "params": 1500, "seconds": 3.0}
    paths = RunPaths(folder)
    write_result(
        paths.result, dataclasses.replace(PLAIN, **{**values, **(result or {})})
    )
    lines = [
        json.dumps({"epoch": k, **dict(zip(epochs, values, strict=True))})
        for k, values in enumerate(zip(*epochs.values(), strict=True), start=1)
    ]
    paths.history.write_text("\n".join(lines) + "\n")
    return folder


def seeded(root, tests=(0.50, 0.52, 0.57), name="kd", seeds=None, result=None, **flags):
    """Runs of one recipe, by seed, in folders with their flags.

    Args:
        root: path of the folder of all.
        tests: accuracy of exit 1 of each seed; the ensemble has 0.1 more.
        name: start of the names of the folders.
        seeds: their seeds; None for 0, 1, ...
        result: fields of `Result` -> values.
        **flags: settings of the runs.
    """
    folders = []
    for place, accuracy in enumerate(tests):
        seed = place if seeds is None else seeds[place]
        test = {"exit_1": accuracy, "exit_2": 0.75, "ensemble": accuracy + 0.1}
        folder = root / f"{name}_seed{seed}"
        values = [0.25 * place, 0.5]
        own = {"seed": seed, **(result or {})}
        logs = {"ensemble_accuracy": values, "val_ensemble_accuracy": values}
        finished(folder, test, own, **logs)
        config = Config(seed=seed, run_dir=str(folder), **flags)
        RunPaths(folder).flags.write_text(to_flagfile(config), encoding="utf-8")
        folders.append(folder)
    return folders


def watch_panels(monkeypatch):
    """Returns a list that gets the axes of every picture that is drawn."""
    panels, seen = figures.panels, []

    @contextlib.contextmanager
    def watched(path, count, size):
        with panels(path, count, size) as axes:
            yield axes
            seen.extend(axes)

    monkeypatch.setattr(figures, "panels", watched)
    return seen
