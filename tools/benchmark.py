"""Measures what training costs: ratios in one process, medians of interleaved repeats.

    python tools/benchmark.py --data_dir=DIR --save=results/benchmark

Each part prints a table: every teacher-student pair (the student alone, the Distiller
with the teacher live and cached, keras.distillation, PyTorch if it is installed);
segmentation; phases and states; every method's step against KD's; the input side;
photographs in files; the cache; peak resident memory. Nothing else should run on the
machine meanwhile.
"""

import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tf_mskd.methods.common.create import create_method, method_defaults
from tf_mskd.runs import cli
from tf_mskd.utils import files  # noqa: E402
from tf_mskd.utils.choices import AUX_HEADS  # noqa: E402
from tools import timing  # noqa: E402

FLAGS = flags.FLAGS
KD_ALL = "kd at every exit"  # which is what mskd is
TORCH_FORMATS = {
    "pytorch, channels first": "contiguous_format",
    "pytorch, channels last": "channels_last",
}
KINDS_OF_MEMORY = {"VmHWM": "resident", "RssAnon": "of it its own"}
RIVALS = ("keras.distillation", *TORCH_FORMATS)
METER = "meter, 1,000 maps of 512x512, 21 classes"
KD = ("live", "cached")


def define():
    """Defines the flags of the command."""
    flags.DEFINE_list(
        "parts",
        ["pairs", "dense", "phases", "methods", "input", "stream", "files", "cache"]
        + ["memory", "meter"],
        "What to measure.",
    )
    flags.DEFINE_list("methods", [], "Methods to compare with KD; empty: all.")
    flags.DEFINE_list(
        "pairs", ["vgg13:vgg8", "resnet152:resnet10"], "Teacher:student pairs."
    )
    flags.DEFINE_list("dense", ["nuclei", "wider"], "Networks of the part dense.")
    flags.DEFINE_integer("batch_size", 64, "Images per step.")
    flags.DEFINE_integer("repeats", 7, "Interleaved repeats; medians are shown.")
    flags.DEFINE_integer("listed", 1_000_000, "Files of the part files.")
    flags.DEFINE_integer("steps", 2, "Steps per repeat.")
    flags.DEFINE_string("data_dir", "", "Folder of the prepared CIFAR-100.")
    flags.DEFINE_string("save", "", "Folder for JSON files and pictures.")
    flags.DEFINE_string("peak", "", "Case whose memory this process shall measure.")


def measure_pair(pair):
    """Step times of one pair; returns the rows of its table and the raw numbers."""
    teacher, student = pair.split(":")
    with tempfile.TemporaryDirectory() as folder:
        cases = pair_cases(teacher, student, folder)
        times = timing.interleave(cases, FLAGS.repeats, FLAGS.steps)
    rows, numbers = step_table(pair, times, COMPARED)
    ratios = numbers["ratios"]
    for row in rows:
        if row[0] in RIVALS:
            to = {x: timing.ratio(times, row[0], f"kd, {x}") for x in KD}
            ratios |= {f"{row[0]} / kd, {x}": value for x, value in to.items()}
            row[3:] = [f"{to['live']:.2f}, {to['cached']:.2f}", "kd live, kd cached"]
    return rows, numbers


def step_table(title, times, compared):
    """The table of some steps: a case's time, and its ratio to the sum of others'.

    Args:
        title: str, of the first column.
        times: dict, case -> seconds a step by round.
        compared: dict, case -> cases whose times are added.
    """
    seconds = timing.medians(times)
    ratios = {n: timing.ratio(times, n, *parts) for n, parts in compared.items()}
    rows = [[title, "ms a step", "images/s", "ratio", "to"]]
    for name, value in seconds.items():
        row = [name, f"{1000 * value:.0f}", f"{FLAGS.batch_size / value:.0f}"]
        ratio = f"{ratios[name]:.2f}" if name in ratios else ""
        rows.append([*row, ratio, " + ".join(compared.get(name, ()))])
    return rows, {"seconds": seconds, "ratios": ratios}


COMPARED = {  # case -> what its time is divided by
    "mskd, live": ("student, all exits", "teacher forward"),
    "oto, live": ("student, all exits", "teacher forward, all exits"),
    "mskd, cached": ("student, all exits",),
    "oto, cached": ("student, all exits",),
    "kd, live": ("student, one exit", "teacher forward"),
    "kd, cached": ("student, one exit",),
    "mskd, filling the cache": ("teacher forward",),
}


def pair_cases(teacher_name, student_name, folder, only=None):
    """The cases of one pair, by name; with `only`, that one alone."""
    from tools import keras_loop, torch_loop
    from tools.our_cases import OurCases

    batch = timing.digits_batch(FLAGS.batch_size)
    pair = (teacher_name, student_name)
    arguments = ({"name": name, "num_classes": 100} for name in pair)
    ours = OurCases(*arguments, batch, folder)
    if only == "keras.distillation":
        return {only: keras_loop.keras_case(*pair, ours.stream())}
    if only:
        return {only: ours.case(only)}
    made = {name: ours.case(name) for name in OurCases.NAMES}
    made["keras.distillation"] = keras_loop.keras_case(*pair, ours.stream())
    for name, memory_format in TORCH_FORMATS.items():
        made[name] = torch_loop.torch_case(*pair, batch, memory_format)
    if made[name] is not None:
        for model in pair:
            _check_same_network(model, torch_loop.count_weights(model))
    return {name: case for name, case in made.items() if case is not None}


def _check_same_network(name, weights):
    import tf_mskd

    ours = tf_mskd.create_model(name, 100, exits="last").trainable_weights
    expected = sum(weight.value.shape.num_elements() for weight in ours)
    if weights != expected:
        raise AssertionError(
            f"{name}: {weights} weights in PyTorch, {expected} in ours"
        )


def measure_cache():
    """Reads a cache of CIFAR-100's size: 8 views, 4 exits of 100 classes."""
    import numpy as np
    import psutil

    from tf_mskd.teacher_cache.store import TeacherCache

    views, examples = 8, timing.CIFAR_IMAGES
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {f"exit_{k}": 100 for k in range(1, 5)}
        cache = TeacherCache(folder, {}, sizes, views=views, examples=examples)
        for name in sizes:  # straight to the files: only the reading is measured
            with open(cache.folder / f"{name}.rows", "r+b") as file:
                for _ in range(views):
                    file.write(generator.bytes(2 * 100 * examples))
        before, rates = psutil.Process().memory_info().rss, []
        for view in range(views):
            order = generator.permutation(examples)
            start = time.perf_counter()
            for first in range(0, examples, FLAGS.batch_size):
                cache.read(view, order[first : first + FLAGS.batch_size])
            rates.append(examples * len(sizes) / (time.perf_counter() - start))
        grown = psutil.Process().memory_info().rss - before
        space = cache.bytes_per_view()
    numbers = {
        "rows_per_second": statistics.median(rates),
        "resident_bytes": grown,
        "bytes_per_view": space,
    }
    rows = [["cache: CIFAR-100, 8 views, 4 exits", ""]]
    rows.append(["rows/s", f"{numbers['rows_per_second']:,.0f}"])
    rows.append(["MB a view on disk", f"{space / 1e6:.1f}"])
    rows.append(["MB resident after reading all", f"{grown / 1e6:.0f}"])
    return rows, numbers


def measure_methods():
    """Every method's step against KD's, ResNet-18 to ResNet-10."""
    from tf_mskd.methods.common import registry

    names = FLAGS.methods or registry.available_methods("classification")
    made = {name: method_case(name) for name in dict.fromkeys(["kd", *names])}
    made[KD_ALL] = method_case("mskd", ["all"])
    cases = {name: case for name, (case, _) in made.items()}
    times = timing.interleave(cases, FLAGS.repeats, FLAGS.steps)
    seconds, kd = timing.medians(times), {"last": "kd", "all": KD_ALL}
    ratios = {n: round(timing.ratio(times, n, kd[made[n][1]]), 3) for n in times}
    rows = [["resnet18 to resnet10", "exits", "ms a step", "of kd, same exits"]]
    for name, value in sorted(seconds.items(), key=lambda item: item[1]):
        row = [name, made[name][1], f"{1000 * value:.0f}", f"{ratios[name]:.2f}"]
        rows.append(row)
    return rows, {"seconds": seconds, "of_kd": ratios}


def method_case(name, choices=("last", "all")):
    """The training step of one method, single-exit unless it wants several.

    Returns:
        (function of the number of steps; "last" or "all", the student's exits).
    """
    import numpy as np

    import tf_mskd

    images, label = timing.digits_batch(FLAGS.batch_size)
    targets = {
        "label": label,
        "index": np.arange(FLAGS.batch_size, dtype="int32"),
    }
    defaults, arguments = method_defaults(name), {}
    if "num_examples" in defaults:
        arguments["num_examples"] = timing.CIFAR_IMAGES
    method = create_method(name, **arguments)
    for key in set(method.target_keys) & {"other_image", "second_view"}:
        targets[key] = images[::-1].copy()
    if "negatives" in method.target_keys:
        generator, size = np.random.default_rng(0), method.num_negatives
        rows = [generator.permutation(timing.CIFAR_IMAGES)[:size] for _ in label]
        targets["negatives"] = np.stack(rows).astype("int32")
    teacher = None
    if method.needs_teacher:
        teacher = tf_mskd.create_model(
            "resnet18", 100, exits="all", aux_heads=AUX_HEADS
        )
    for exits in choices:
        student = tf_mskd.create_model(
            "resnet10", 100, exits=exits, aux_heads=method.aux_heads
        )
        try:
            distiller = tf_mskd.Distiller(student, teacher, method)
            return timing.training_case(distiller, (images, targets)), exits
        except tf_mskd.UserError:  # it trains several exits
            if exits == "all":
                raise
            method = create_method(name, **arguments)


def measure_phases(name="resnet18"):
    """Progressive phase 1 against the joint step, deep supervision, one network."""
    import tf_mskd

    batch = timing.digits_batch(FLAGS.batch_size)
    cases, distillers = {}, {}
    for phases in ("joint", "progressive"):
        student = tf_mskd.create_model(name, 100, exits="all")
        distiller = tf_mskd.Distiller(student, method="ce", phases=phases)
        cases[phases] = timing.training_case(distiller, batch)
        distillers[phases] = distiller
    times = timing.interleave(cases, FLAGS.repeats, FLAGS.steps)
    rows, seconds = [[f"{name}, ce", "ms a step", "of joint"]], timing.medians(times)
    for phases, value in seconds.items():
        share = f"{timing.ratio(times, phases, 'joint'):.3f}"
        rows.append([phases, f"{1000 * value:.1f}", share])
    epoch = timing.CIFAR_IMAGES / FLAGS.batch_size * seconds["joint"]
    for name, value in checkpoint_seconds(distillers["joint"]).items():
        seconds[f"checkpoint, {name}"] = value
        title = f"a checkpoint, {name}; of a CIFAR epoch"
        rows.append([title, f"{1000 * value:.1f}", f"{value / epoch:.5f}"])
    return rows, seconds


def measure_dense(size):
    """Step times of segmentation, ResNet-18 to ResNet-10 of one of the sizes."""
    from tools import dense_cases

    cases = dense_cases.dense_cases(size, FLAGS.batch_size)
    times = timing.interleave(cases, FLAGS.repeats, FLAGS.steps)
    title = "segmentation, {} classes, widths {} and {}"
    title = title.format(*dense_cases.SIZES[size])
    return step_table(title, times, dense_cases.COMPARED)


def checkpoint_seconds(distiller):
    """Median seconds that training waits for a checkpoint, and until it is flushed."""
    from tf_mskd.training.checkpoint import CheckpointManager

    waits, writes = [], []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        checkpoints = CheckpointManager(folder)
        for step in range(5):
            start = time.perf_counter()
            checkpoints.write_behind(step, distiller.state_variables, {"step": step})
            waits.append(time.perf_counter() - start)
            checkpoints.wait()
            writes.append(time.perf_counter() - start)
    return {
        "training waits": statistics.median(waits),
        "on the disk": statistics.median(writes),
    }


def measure_input():
    """Images per second of the training stream under each augmentation."""
    import numpy as np

    from tf_mskd.data import augment, pipeline, sources

    images, labels = timing.digits_batch(1792)
    split = sources.Split(
        np.tile(images, (16, 1, 1, 1)), {"label": np.tile(labels, 16)}
    )
    ids = np.arange(len(split.labels))
    cases, batch_size = {}, 128
    for names in ("none", "crop,flip", "rotate,flip", "crop,flip,autoaugment"):
        stream = pipeline.train_stream(
            split,
            ids,
            batch_size=batch_size,
            seed=0,
            augment=augment.make_augment(names),
            start_step=0,
            num_steps=10**9,
        )
        batches = iter(stream)
        cases[names] = lambda n, batches=batches: [next(batches) for _ in range(n)]
    for case in cases.values():  # fill the prefetch buffers
        case(50)
    seconds = timing.medians(timing.interleave(cases, FLAGS.repeats, 100))
    rows = [["augmentation", "images/s"]]
    rows += [[name, f"{batch_size / value:,.0f}"] for name, value in seconds.items()]
    return rows, seconds


def measure_stream():
    """Images per second of photographs that are decoded from files at 224 pixels."""
    from tools import stream_cases

    batch_size = 32
    with tempfile.TemporaryDirectory() as folder:
        stream_cases.write_photographs(folder, 512)
        times = stream_cases.time_cases(folder, batch_size, FLAGS.repeats)
    rows = [["photographs at 224 pixels", "images/s", "speed of"]]
    numbers = {"images_per_second": {}, "speed_of": {}}
    for name, value in timing.medians(times).items():
        compared = stream_cases.COMPARED.get(name, ())
        speeds = {x: 1 / timing.ratio(times, name, x) for x in compared}
        numbers["images_per_second"][name] = batch_size / value
        numbers["speed_of"][name] = speeds
        told = ", ".join(f"{x} {speed:.2f}" for x, speed in speeds.items())
        rows.append([name, f"{batch_size / value:,.0f}", told])
    return rows, numbers


def measure_files():
    """Start with many files, decoding into memory, training from files."""
    from tools import stream_cases

    with tempfile.TemporaryDirectory() as folder:
        numbers = {"listing": stream_cases.listing(f"{folder}/many", FLAGS.listed)}
        stream_cases.write_photographs(f"{folder}/photographs", 512)
        photographs = f"{folder}/photographs"
        times = stream_cases.decode_seconds(photographs, FLAGS.repeats)
        numbers["waiting"] = stream_cases.waiting_share(photographs, 32, FLAGS.steps)
    one, all_cores = times
    numbers["speed_of_one_core"] = 1 / timing.ratio(times, all_cores, one)
    listed = numbers["listing"]
    listed = f"{listed['seconds']:.1f} s, {listed['bytes'] / 1e6:.0f} MB"
    rows = [["files", ""], [f"start with {FLAGS.listed:,} files", listed]]
    speed = f"{numbers['speed_of_one_core']:.2f}"
    rows.append([f"decoding on {all_cores} cores, speed of one", speed])
    waiting = f"{numbers['waiting']:.1%}"
    rows.append(["training MobileNetV2 at 224 pixels, waiting for images", waiting])
    return rows, numbers


def measure_memory():
    """Peak memory: a CIFAR-100 run, and KD by each means, a process each."""
    peaks = {}
    if FLAGS.data_dir:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tf_mskd.train"]
            command += ["--flagfile=configs/cifar100/resnet10.flags", "--exits=all"]
            command += [f"--data_dir={FLAGS.data_dir}", f"--run_dir={folder}/run"]
            command += ["--epochs=1", "--train_fraction=0.03", "--notensorboard"]
            command += ["--lr_schedule=constant"]
            peaks["train resnet10, CIFAR-100"] = peak_of(command)
    for library in ("tensorflow", "torch"):
        code = f"import {library}, time; time.sleep(0.5)"
        peaks[f"import {library}"] = peak_of([sys.executable, "-c", code])
    pair, size = FLAGS.pairs[-1], str(FLAGS.batch_size)
    for case in ("kd, live", "kd, cached", *RIVALS):
        command = [sys.executable, __file__, f"--peak={case}", f"--pairs={pair}"]
        command += [f"--batch_size={size}"]
        if case in TORCH_FORMATS:
            loop = str(pathlib.Path(__file__).with_name("torch_loop.py"))
            command = [sys.executable, loop, *pair.split(":")]
            command += [TORCH_FORMATS[case], size]
        peaks[f"{case}, {pair}"] = peak_of(command)
    return memory_table(peaks)


def measure_meter():
    """Peak memory of a process that meters 1,000 label maps, a batch at a time."""
    command = [sys.executable, __file__, f"--peak={METER}"]
    return memory_table({METER: peak_of(command)})


def memory_table(peaks):
    """The table and the numbers of peaks, dict, name -> that of `peak_of`."""
    numbers = {name: peak for name, peak in peaks.items() if peak}
    rows = [["peak memory, GB", *KINDS_OF_MEMORY.values()]]
    for name, peak in numbers.items():
        rows.append([name, *(f"{value / 1e9:.2f}" for value in peak.values())])
    return rows, numbers


def peak_of(command):
    """Runs a command and looks at its memory every 20 ms.

    Returns:
        dict: "resident", peak bytes; "of it its own", peak bytes of those that no file
        backs (a library's code is backed by its file, shared by all processes that use
        it, and the system may drop it). {} if the command failed.
    """
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)
    status, peak = pathlib.Path(f"/proc/{process.pid}/status"), {}
    while process.poll() is None:
        text = status.read_text(encoding="utf-8")
        for key, name in KINDS_OF_MEMORY.items():
            found = re.search(rf"{key}:\s*(\d+)", text)
            if found:
                peak[name] = max(1024 * int(found[1]), peak.get(name, 0))
        time.sleep(0.02)
    return {} if process.returncode else peak


def run_peak_case(name):
    """Three steps of one case; the process that started this one looks at its peak."""
    if name == METER:
        from tools import dense_cases

        dense_cases.meter_large_maps()
        return
    with tempfile.TemporaryDirectory() as folder:
        pair_cases(*FLAGS.pairs[0].split(":"), folder, only=name)[name](3)


def draw(numbers, path):
    """Draws images per second of every pair as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pairs = [p for p in FLAGS.pairs if p in numbers]
    figure, axes = pyplot.subplots(
        1, len(pairs), figsize=(7 * len(pairs), 4.5), squeeze=False
    )
    for axis, pair in zip(axes[0], pairs, strict=True):
        seconds = numbers[pair]["seconds"]
        names = [n for n in seconds if "forward" not in n and "filling" not in n]
        values = [FLAGS.batch_size / seconds[name] for name in names]
        groups = {"student": "tab:gray", "mskd": "tab:blue", "oto": "tab:cyan"}
        groups |= {"kd": "tab:green"}
        colors = [groups.get(n.partition(",")[0], "tab:red") for n in names]
        bars = axis.barh(names[::-1], values[::-1], color=colors[::-1])
        axis.bar_label(bars, fmt="%.0f", padding=3)
        axis.set(title=pair.replace(":", " to "), xlabel="images/s")
        axis.margins(x=0.12)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main():
    """Runs the parts, prints their tables and saves the numbers."""
    if FLAGS.peak:
        return run_peak_case(FLAGS.peak)
    from tf_mskd.utils.tables import as_text

    about = {
        "machine": f"{os.cpu_count()} CPU cores",
        "batch_size": FLAGS.batch_size,
    }
    about |= {"repeats": FLAGS.repeats, "command": " ".join(sys.argv[1:])}
    numbers = {}
    jobs = {"cache": measure_cache}  # before others have filled the memory
    jobs |= {f"pairs {p}": lambda p=p: measure_pair(p) for p in FLAGS.pairs}
    dense = {f"dense dense_{n}": lambda n=n: measure_dense(n) for n in FLAGS.dense}
    jobs |= dense | {"phases": measure_phases, "methods": measure_methods}
    jobs |= {"input": measure_input, "stream": measure_stream}
    jobs |= {"files": measure_files}
    jobs |= {"memory": measure_memory, "meter": measure_meter}
    for name, job in jobs.items():
        part, _, pair = name.partition(" ")
        if part in FLAGS.parts:
            rows, numbers[pair or part] = job()
            print(as_text(rows), end="\n\n", flush=True)
    if FLAGS.save:
        folder = files.make_folder(FLAGS.save)
        for part, value in numbers.items():
            name = part.replace(":", "_to_")
            files.write_json(folder / f"{name}.json", {**about, **value})
        if any(pair in numbers for pair in FLAGS.pairs):
            draw(numbers, folder / "speed.png")


if __name__ == "__main__":
    cli.run(main, define, __doc__)
