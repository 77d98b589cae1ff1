"""Runs the cells of a published table, and prints published beside measured.

    python tools/reproduce.py --table=methods --pair=vgg13_vgg8 --methods=kd,mskd,oto \\
        --data_dir=DIR --output=runs/reproduce

The networks alone come first, then the methods in the order given. A run folder is that
of `tf_mskd.train`; further flags of a run, such as --seed=1, go to every cell but that
of the teacher, which all methods share. The same
command goes on where it was stopped: with --minutes it stops by itself, for machines
that are lent in slices. --dry_run says what is missing, the hours and the disk it
takes. With KERAS_BACKEND=jax and --data_dir=FILE.npz no TensorFlow is needed; such a
file is what `python -m tf_mskd.data.prepare --npz=FILE.npz` writes.
"""

import os
import pathlib
import signal
import sys
import threading
import time
import types

import numpy as np
from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tf_mskd.runs import cli, published  # noqa: E402
from tf_mskd.runs import flags as run_flags  # noqa: E402
from tf_mskd.runs.config import Config  # noqa: E402
from tf_mskd.runs.plan import ACTIONS, HANDED_DOWN, plan  # noqa: E402
from tf_mskd.training.stopping import Stopped  # noqa: E402
from tf_mskd.utils.errors import unknown_name  # noqa: E402
from tf_mskd.utils.start import on_jax, start_jax, start_tensorflow  # noqa: E402
from tf_mskd.utils.tables import as_text  # noqa: E402

METHODS = "comparison of methods"  # what the source of that table's figures ends in
IMAGES = {  # data set -> images, side, classes
    "cifar100": (50_000, 32, 100),
    "tiny_imagenet": (100_000, 64, 200),
    "imagenet2012": (1_281_167, 224, 1000),
}
TIMED_STEPS = 5


def define():
    """Defines the flags of the tool, and those of a run."""
    run_flags.define()
    flags.DEFINE_enum(
        "table", "methods", ["methods"], "Table of results/published.csv."
    )
    flags.DEFINE_string("pair", "vgg13_vgg8", "TEACHER_STUDENT, a column of the table.")
    flags.DEFINE_list("methods", [], "Rows of the table; empty: all of them.")
    flags.DEFINE_string("output", "runs/reproduce", "Folder of the run folders.")
    flags.DEFINE_boolean("dry_run", False, "Says what would be done, and how long.")
    flags.DEFINE_float(
        "minutes", 0, "Stops, with a checkpoint, after so long; 0: at the end."
    )


def cells_of(dataset, pair, methods):
    """The runs of a column: the networks alone, then the methods.

    Args:
        dataset: str, such as "cifar100".
        pair: str, such as "vgg13_vgg8".
        methods: list of str, names in the table; [] for all.

    Returns:
        dict, name of the run -> list of flags of `tf_mskd.train`; the teacher's first.

    Raises:
        UserError: for a data set, a pair or a method that the table does not have.
    """
    figures = [f for f in published.read_figures() if f.source.endswith(METHODS)]
    sets = {f.table for f in figures}
    if dataset not in sets:
        raise unknown_name("dataset of the table", dataset, sorted(sets))
    table = [f for f in figures if f.table == dataset]
    pairs = {f.pair.replace(":", "_"): f.pair for f in table}
    if pair not in pairs:
        raise unknown_name("pair", pair, list(pairs))
    rows = {f.method.partition(",")[0]: f for f in table if f.pair == pairs[pair]}
    unknown = [name for name in methods if name not in rows]
    if unknown:
        raise unknown_name("method of the table", unknown[0], list(rows))
    networks = pairs[pair].split(":")
    alone = {n: [f"--flagfile=configs/{dataset}/{n}.flags"] for n in networks}
    chosen = methods or list(rows)
    return {**alone, **{f"{pair}_{name}": rows[name].flags for name in chosen}}


def estimate(runs):
    """What unfinished runs take on this machine, as a table and a sentence.

    The speed is that of a few steps of the last run's student alone, measured here.

    Args:
        runs: list of `PlannedRun`.
    """
    rows = [["run", "action", "epochs", "PFLOP", "hours", "disk, GB"]]
    work = {run.run_dir: _work(run) for run in runs}
    rate, hours, disk = _measured_rate(runs[-1].config), 0.0, 0.0
    for run in runs:
        operations, size = work[run.run_dir]
        hours += operations / rate / 3600
        disk += size
        row = [run.run_dir, ACTIONS[run.status], str(run.config.epochs)]
        row += [f"{operations / 1e15:.1f}", f"{operations / rate / 3600:.1f}"]
        rows.append([*row, f"{size / 1e9:.2f}"])
    return (
        f"{as_text(rows)}\n{hours:.1f} hours at {rate / 1e12:.2f} TFLOP/s, measured on "
        f"this machine with the student alone, and {disk / 1e9:.2f} GB of disk."
    )


def _work(run):
    """Operations of a run, and the bytes of its folder."""
    from tf_mskd import models
    from tf_mskd.runs.stages import required_config

    config = run.config
    student, count = _network(config), IMAGES[config.dataset][0]
    images = config.epochs * config.train_fraction * count
    images *= 1 - config.validation_fraction
    operations = 6 * models.count_macs(student) * images  # forward, and twice back
    teacher = required_config(config, "teacher")
    if teacher:
        operations += 2 * models.count_macs(_network(teacher)) * images
    weights = 4 * student.count_params()  # twice in two checkpoints, and once alone
    return operations, 5 * weights


def _network(config):
    from tf_mskd.runs import build

    _, side, classes = IMAGES[config.dataset]
    known = {"mean": None, "std": None, "image_shape": (side, side, 3)}
    return build.build_network(
        config, types.SimpleNamespace(num_classes=classes, **known)
    )


def _measured_rate(config):
    """Operations per second of a training step, one batch at a time."""
    from tf_mskd import SGD, Distiller, models

    student = _network(config)
    distiller = Distiller(student, method="ce")
    distiller.compile(SGD(1e-3))
    size, (_, side, classes) = config.batch_size, IMAGES[config.dataset]
    images = np.zeros((size, side, side, 3), "uint8")
    labels = np.arange(size) % classes
    seconds = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        distiller.train_on_batch(images, labels)
        seconds.append(time.perf_counter() - start)
    return 6 * models.count_macs(student) * size / sorted(seconds)[len(seconds) // 2]


def stop_after(minutes):
    """Asks this process to stop, as a signal from outside would, once.

    Returns:
        (`threading.Timer`, `threading.Event` that is set before it asks).
    """
    asked = threading.Event()

    def ask():
        asked.set()
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(60 * minutes, ask)
    timer.daemon = True
    timer.start()
    return timer, asked


def run_all(runs):
    """Does the runs, one after the other."""
    if on_jax():
        from tf_mskd.on_jax import experiment
    else:
        from tf_mskd.runs import experiment
    for config in runs:
        experiment.run(config)


def main():
    """Does what is missing of a column, and prints the table."""
    values = flags.FLAGS
    dataset = values.dataset if values["dataset"].present else "cifar100"
    cells = cells_of(dataset, values.pair, values.methods)
    more = run_flags.given_flags(values, {"run_dir": "--output"})
    folders = {name: f"{values.output}/{dataset}/{name}" for name in cells}
    teacher = next(iter(cells))
    configs = {
        name: run_flags.read_flags([*cell, *more, f"--run_dir={folders[name]}"])
        for name, cell in cells.items()
    }
    handed_down = {n: getattr(configs[teacher], n) for n in ("run_dir", *HANDED_DOWN)}
    configs[teacher] = run_flags.read_flags(cells[teacher], **handed_down)
    planned = {run.run_dir: run for c in configs.values() for run in plan(c)}
    start_jax() if on_jax() else start_tensorflow()
    missing = [run for run in planned.values() if run.status != "finished"]
    if values.dry_run:
        print(estimate(missing) if missing else "Every cell is there.")
    elif missing:
        _do(list(configs.values()), values.minutes)
    _show(folders)


def _do(configs: list[Config], minutes):
    if not minutes:
        run_all(configs)
        return
    timer, asked = stop_after(minutes)
    try:
        run_all(configs)
    except Stopped as stop:
        if not asked.is_set():
            raise  # somebody else has asked
        print(stop.text)
    finally:
        timer.cancel()


def _show(folders):
    finished = [path for path in folders.values() if _result(path).exists()]
    if finished:
        print(published.describe(finished))
    waiting = [name for name, path in folders.items() if path not in finished]
    if waiting:
        print(f"missing: {', '.join(waiting)}")


def _result(path):
    return pathlib.Path(path) / "result.json"


if __name__ == "__main__":
    cli.run(main, define, __doc__)
