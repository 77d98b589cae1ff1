"""Measures exported students: latency, size and accuracy of every file and endpoint.

    python tools/serve_benchmark.py --exports=exports/oto --dataset=cifar100 \\
        --data_dir=DIR --save=results/deployment

Batch 1 over real test images, on one thread and on all, each in a process of its own
(TensorFlow's threads are set before it starts); files and endpoints take turns of 15
images, so that ratios are of one run, and each turn comes five times. Median and 95th
percentile are of all calls. "best" is the mean over images of each one's fastest call,
which other work on the machine disturbs least, the images of each exit weighted by how
many of --accuracy_images exit there; ratios are of it. Nothing else should run all the
same. --save writes latency.json, latency.md and latency.png.
"""

import multiprocessing
import os
import pathlib
import random
import sys
import time

import numpy as np
from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tf_mskd.early_exit.thresholds import NEVER  # noqa: E402
from tf_mskd.runs import cli  # noqa: E402
from tf_mskd.utils import figures, files  # noqa: E402
from tf_mskd.utils.errors import UserError  # noqa: E402
from tf_mskd.utils.tables import as_text  # noqa: E402

TURN, REPEATS = 15, 5  # images, and how often each is timed
MODES = {"at 0": 0.0, "calibrated": -1.0, "full": NEVER}  # thresholds
TARGETS = {  # ratio -> its largest value
    "early_exit at 0 / exit_1": 1.1,
    "early_exit full / ensemble": 1.1,
    "early_exit calibrated / full": 0.65,
    "int8 / float32 bytes": 0.3,
    "int8 / float32 latency": 0.5,
    "points lost by int8": 1.0,
}


def define():
    """Defines the flags of the tool."""
    flags.DEFINE_list("exports", [], "Folders of tf_mskd.export; required.")
    flags.DEFINE_string("dataset", "cifar100", "Data set of the images.")
    flags.DEFINE_string("data_dir", "", "Folder of the prepared data.")
    flags.DEFINE_string("save", "", "Folder for the numbers, the tables and the plot.")
    flags.DEFINE_integer("images", 300, "Test images to time.", lower_bound=10)
    flags.DEFINE_integer(
        "accuracy_images", 2000, "Test images to count.", lower_bound=1
    )
    flags.DEFINE_boolean("saved_model", True, "Also the SavedModel.")
    flags.DEFINE_boolean(
        "keep_memory", True, "TFLite: keep the memory of branches between calls."
    )


def load_cases(folder, num_threads, with_saved_model, keep_memory):
    """The calls to measure: dict, (file, case) -> function of a uint8 [1, H, W, C]."""
    from tf_mskd.deployment.saved_model import open_saved_model
    from tf_mskd.deployment.tflite import open_tflite

    cases = {}
    for entry in files.read_json(folder / "export.json")["files"]:
        if entry["format"] == "tflite":
            runners = open_tflite(folder / entry["file"], num_threads, keep_memory)
        elif with_saved_model:
            runners = open_saved_model(folder / entry["file"])
        else:
            continue
        for name, run in runners.items():
            if name in ("serving_default", "early_exit_batched"):
                continue
            if name != "early_exit":
                cases[entry["file"], name] = lambda x, run=run: run(image=x)
                continue
            for mode, value in MODES.items():
                t = np.float32(value)
                case = entry["file"], f"early_exit {mode}"
                cases[case] = lambda x, run=run, t=t: run(image=x, threshold=t)
    return cases


def measure(cases, images):
    """Seconds of every call, (file, case) -> float array [N, REPEATS].

    Cases take turns of `TURN` images, the first three once more before, uncounted: an
    endpoint that serves has its weights in the processor's cache. The order of the
    cases is drawn anew for every turn.
    """
    draw = random.Random(0)
    times = {key: np.empty((len(images), REPEATS)) for key in cases}
    for start in range(0, len(images), TURN):
        turn = images[start : start + TURN]
        for repeat in range(REPEATS):
            for key in draw.sample(list(cases), len(cases)):
                run = cases[key]
                for image in turn[:3]:
                    run(image[None])
                for index, image in enumerate(turn, start):
                    begin = time.perf_counter()
                    run(image[None])
                    times[key][index, repeat] = time.perf_counter() - begin
    return times


def predictions(run, images):
    """(classes [N], exit numbers [N]) of images [N, H, W, C], one at a time."""
    found = [run(image[None]) for image in images]
    return tuple(np.array([row[key][0] for row in found]) for key in ("class", "exit"))


def mean_by_exit(ms, timed, counted):
    """Mean of what images took, as if they exited where many others do.

    Few timed images may be easier than most: each exit counts by the fraction of
    `counted` that exits there, of those where a timed image exited.

    Args:
        ms: float [N], of the timed images.
        timed: int [N], exits that they took.
        counted: int [M], exits that other images took.
    """
    exits = np.unique(timed)
    rates = [np.mean(counted == exit) for exit in exits]
    return float(np.average([ms[timed == e].mean() for e in exits], weights=rates))


def measure_export(folder, split, values):
    """Rows of numbers of one export: a dict for each file, case and thread count."""
    some = slice(max(values.images, values.accuracy_images))
    rows = []
    for threads in sorted({1, os.cpu_count()}):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            arguments = folder, threads, split.images[some], split.labels[some]
            rows += pool.apply(measure_threads, (*arguments, values.flag_values_dict()))
    return rows


def measure_threads(folder, threads, images, labels, options):
    """The rows of one thread count; called once, in a fresh process."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    cases = load_cases(folder, threads, options["saved_model"], options["keep_memory"])
    timed, counted = (slice(options[k]) for k in ("images", "accuracy_images"))
    times = measure(cases, images[timed])
    written = files.read_json(folder / "export.json")["files"]
    bytes_of = {entry["file"]: entry["bytes"] for entry in written}
    rows = []
    for (file, case), seconds in times.items():
        ms = 1000 * seconds
        row = {"export": folder.name, "file": file, "case": case}
        row |= {"threads": threads, "bytes": bytes_of[file]}
        row["median_ms"] = float(np.median(ms))
        row["p95_ms"] = float(np.percentile(ms, 95))
        classes, exits = predictions(cases[file, case], images)
        fastest = ms.min(axis=1)
        row["best_ms"] = mean_by_exit(fastest, exits[timed], exits[counted])
        row["accuracy"] = float(np.mean(classes[counted] == labels[counted]))
        rows.append({**row, "mean_exit": float(exits[counted].mean())})
    return rows


def ratios(rows):
    """The ratios of `TARGETS`: a dict for each export, thread count, file and ratio."""
    found = []
    by = {(r["export"], r["threads"], r["file"], r["case"]): r for r in rows}
    for export, threads, file in dict.fromkeys(key[:3] for key in by):

        def best(case, file=file, export=export, threads=threads):
            return by[export, threads, file, case]["best_ms"]

        full = best("early_exit full")
        made = {
            "early_exit at 0 / exit_1": best("early_exit at 0") / best("exit_1"),
            "early_exit full / ensemble": full / best("ensemble"),
            "early_exit calibrated / full": best("early_exit calibrated") / full,
        }
        plain = "student_float32.tflite"
        if file == "student_int8.tflite" and (export, threads, plain, "ensemble") in by:
            one, two = (by[export, threads, f, "ensemble"] for f in (file, plain))
            made["int8 / float32 bytes"] = one["bytes"] / two["bytes"]
            made["int8 / float32 latency"] = one["best_ms"] / two["best_ms"]
            lost = two["accuracy"] - one["accuracy"]
            made["points lost by int8"] = round(100 * lost, 9)
        for name, value in made.items():
            row = {"export": export, "threads": threads, "file": file, "ratio": name}
            row |= {"value": value, "target": TARGETS[name]}
            found.append({**row, "met": bool(value <= TARGETS[name])})
    return found


def tables(rows, found):
    """Two tables as text: the numbers of all endpoints, and the ratios of the files."""
    head = ["export, file, endpoint", "threads", "median ms", "95 % ms", "best ms"]
    lines = [[*head, "accuracy", "mean exit", "kB"]]
    for r in rows:
        ms = [f"{r[key]:.3f}" for key in ("median_ms", "p95_ms", "best_ms")]
        rest = [f"{100 * r['accuracy']:.2f}", f"{r['mean_exit']:.2f}"]
        kilobytes = str(round(r["bytes"] / 1000))
        name = f"{_file_name(r)} {r['case']}"
        lines.append([name, str(r["threads"]), *ms, *rest, kilobytes])
    checks = {}
    for r in found:
        text = f"{r['value']:.2f}" + ("" if r["met"] else " *")
        checks.setdefault((_file_name(r), str(r["threads"])), {})[r["ratio"]] = text
    summary = [["export, file", "threads", *TARGETS]]
    for key, values in checks.items():
        summary.append([*key, *(values.get(name, "") for name in TARGETS)])
    summary.append(["target, at most (* missed)", "", *map(str, TARGETS.values())])
    return as_text(lines) + "\n\n" + as_text(summary)


def _file_name(row):
    file = row["file"].removeprefix("student_").removesuffix(".tflite")
    return f"{row['export']} {file}"


def draw(rows, path):
    """Accuracy over mean latency, one thread: a panel for each export."""
    marks = {"exit": "o", "ensemble": "s", "early_exit at 0": "v"}
    marks |= {"early_exit calibrated": "*", "early_exit full": "^"}
    exports = list(dict.fromkeys(row["export"] for row in rows))
    size = (6.4 * len(exports), 4.8)
    with figures.panels(path, len(exports), size) as panels:
        for panel, export in zip(panels, exports, strict=True):
            mine = [r for r in rows if r["export"] == export and r["threads"] == 1]
            _draw_export(mine, marks, panel)
            panel.set(title=export)


def _draw_export(rows, marks, panel):
    kinds = list(dict.fromkeys(r["file"] for r in rows))
    for row in rows:
        case = "exit" if row["case"].startswith("exit_") else row["case"]
        color = f"C{kinds.index(row['file'])}"
        panel.plot(
            row["best_ms"], 100 * row["accuracy"], marks[case], color=color, ms=8
        )
    for k, file in enumerate(kinds):
        label = file.removeprefix("student_").removesuffix(".tflite")
        panel.plot([], [], "-", color=f"C{k}", lw=4, label=label)
    for case, mark in marks.items():
        label = "exit k alone" if case == "exit" else case
        panel.plot([], [], mark, color="0.4", label=label)
    panel.set(xscale="log")
    panel.set(
        xlabel="ms an image (mean of best), one thread", ylabel="test accuracy in %"
    )


def main():
    """Measures, prints and saves."""
    from tf_mskd.data.sources import load_source

    values = flags.FLAGS
    folders = [pathlib.Path(folder) for folder in values.exports]
    if not folders:
        raise UserError("--exports is empty: name folders of tf_mskd.export.")
    for folder in folders:
        if not (folder / "export.json").is_file():
            raise UserError(f"{folder} is no export (it has no export.json).")
    split = load_source(values.dataset, values.data_dir or None).test
    rows = []
    for folder in folders:
        rows += measure_export(folder, split, values)
    found = ratios(rows)
    text = tables(rows, found)
    print(text)
    if values.save:
        save = pathlib.Path(values.save)
        save.mkdir(parents=True, exist_ok=True)
        numbers = {"cores": os.cpu_count(), "images": values.images}
        numbers["accuracy_images"] = values.accuracy_images
        numbers["keep_memory"] = values.keep_memory
        content = {**numbers, "rows": rows, "ratios": found}
        files.write_json(save / "latency.json", content)
        files.write_text(save / "latency.md", text + "\n")
        draw(rows, save / "latency.png")


if __name__ == "__main__":
    define()
    cli.run(main, define, __doc__)
