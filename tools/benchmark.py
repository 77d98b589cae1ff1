"""Measures what training costs: ratios in one process, medians of interleaved repeats.

    python tools/benchmark.py --data_dir=DIR --save=results/benchmark

Four parts, each printed as a table: the Distiller's step against the student's own
arithmetic and the teacher's forward pass; every method's step against KD's; the input
side in images per second; peak resident memory of a CIFAR-100 run. Nothing else should
run on the machine meanwhile.
"""

import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tf_mskd import cli, files  # noqa: E402

PARTS = flags.DEFINE_list(
    "parts", ["steps", "methods", "input", "memory"], "What to measure."
)
METHODS = flags.DEFINE_list("methods", [], "Methods to compare with KD; empty: all.")
PAIRS = flags.DEFINE_list(
    "pairs", ["vgg13:vgg8", "resnet18:resnet10"], "Teacher:student pairs of the steps."
)
BATCH = flags.DEFINE_integer("batch_size", 64, "Images per step.")
REPEATS = flags.DEFINE_integer("repeats", 7, "Interleaved repeats; medians are shown.")
STEPS = flags.DEFINE_integer("steps", 3, "Steps per repeat.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder of the prepared CIFAR-100.")
SAVE = flags.DEFINE_string("save", "", "Folder for benchmark.json.")

CIFAR_IMAGES = 50_000


def interleave(cases, repeats, steps):
    """Times every case once a round; returns a dict, name -> median seconds a step.

    Args:
        cases: dict, name -> function of the number of steps that runs them and waits.
        repeats: int > 0, rounds; one more goes first for tracing.
        steps: int > 0, steps per call.
    """
    times = {name: [] for name in cases}
    for case in cases.values():
        case(1)
    for _ in range(repeats):
        for name, case in cases.items():
            start = time.perf_counter()
            case(steps)
            times[name].append((time.perf_counter() - start) / steps)
    return {name: statistics.median(values) for name, values in times.items()}


def digits_batch(batch_size, side=32):
    """Real digits enlarged to CIFAR's size: (uint8 [B, side, side, 3], int32 [B])."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images[:batch_size].repeat(side // 8, 1).repeat(side // 8, 2)
    images = (images[..., None].repeat(3, -1) * 15).astype("uint8")
    return images, digits.target[:batch_size].astype("int32")


def training_case(distiller, batch):
    """A function of n that trains n steps on one batch in a compiled loop."""
    import tensorflow as tf

    from tf_mskd import SGD

    distiller.compile(SGD(0.01, l2=5e-4), jit_compile=False)
    distiller.optimizer.build(distiller.trainable_variables)
    data = tf.nest.map_structure(tf.constant, batch)
    step = tf.autograph.experimental.do_not_convert(distiller.train_step)

    @tf.function
    def train(n):
        for _ in tf.range(n):
            step(data)

    return lambda n: (train(tf.constant(n)), distiller.optimizer.iterations.numpy())


def forward_case(model, batch):
    """A function of n that runs n inference passes in a compiled loop."""
    import tensorflow as tf

    images = tf.constant(batch[0])

    @tf.function
    def forward(n):
        total = 0.0
        for _ in tf.range(n):
            outputs = model(images, training=False)
            total += tf.add_n([tf.reduce_sum(v) for v in outputs.values()])
        return total

    return lambda n: float(forward(tf.constant(n)))


def measure_steps(pair):
    """Step times of one pair; returns the rows of its table and the raw seconds."""
    import tf_mskd
    from tf_mskd.models import sub_model

    names = pair.split(":")
    student_name, teacher_name = names[1], names[0]
    batch = digits_batch(BATCH.value)
    teacher = tf_mskd.create_model(teacher_name, 100, exits="all")
    last = sub_model(teacher, [list(teacher.output)[-1]])
    cases = {"mskd teacher forward": forward_case(last, batch)}
    cases["oto teacher forward"] = forward_case(teacher, batch)
    for name, method, phases in (
        ("student, ce at every exit", "ce", "joint"),
        ("mskd", "mskd", "joint"),
        ("oto", "oto", "joint"),
        ("mskd, progressive phase 1", "mskd", "progressive"),
    ):
        student = tf_mskd.create_model(student_name, 100, exits="all")
        with_teacher = None if method == "ce" else teacher
        distiller = tf_mskd.Distiller(student, with_teacher, method, phases=phases)
        cases[name] = training_case(distiller, batch)
    seconds = interleave(cases, REPEATS.value, STEPS.value)
    rows = [[pair, "ms a step", "images/s", "of student + teacher forward"]]
    for name, value in seconds.items():
        row = [name, f"{1000 * value:.1f}", f"{BATCH.value / value:.0f}", ""]
        method = name.partition(",")[0]
        if method in ("mskd", "oto"):
            limit = seconds["student, ce at every exit"]
            row[3] = f"{value / (limit + seconds[f'{method} teacher forward']):.3f}"
        rows.append(row)
    return rows, seconds


def measure_methods():
    """Every method's step against KD's, ResNet-18 to ResNet-10."""
    from tf_mskd import registry

    names = METHODS.value or registry.available_methods()
    cases = {name: method_case(name) for name in dict.fromkeys(["kd", *names])}
    seconds = interleave(cases, REPEATS.value, 1)
    ratios = {name: round(value / seconds["kd"], 3) for name, value in seconds.items()}
    rows = [["resnet18 to resnet10", "ms a step", "of kd"]]
    for name, value in sorted(seconds.items(), key=lambda item: item[1]):
        rows.append([name, f"{1000 * value:.0f}", f"{ratios[name]:.2f}"])
    machine = f"{os.cpu_count()} CPU cores"
    numbers = {"machine": machine, "seconds": seconds, "of_kd": ratios}
    if SAVE.value:
        folder = pathlib.Path(SAVE.value)
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / "methods.json", numbers)
    return rows, numbers


def method_case(name):
    """The training step of one method, single-exit unless it wants several."""
    import numpy as np

    import tf_mskd
    from tf_mskd import registry

    images, label = digits_batch(BATCH.value)
    targets = {"label": label, "index": np.arange(BATCH.value, dtype="int32")}
    defaults, arguments = registry.method_defaults(name), {}
    if "num_examples" in defaults:
        arguments["num_examples"] = CIFAR_IMAGES
    method = registry.create_method(name, **arguments)
    for key in set(method.target_keys) & {"other_image", "second_view"}:
        targets[key] = images[::-1].copy()
    if "negatives" in method.target_keys:
        generator, size = np.random.default_rng(0), method.num_negatives
        rows = [generator.permutation(CIFAR_IMAGES)[:size] for _ in label]
        targets["negatives"] = np.stack(rows).astype("int32")
    teacher = None
    if method.needs_teacher:
        heads = ("projection", "aux", "paraphraser")
        teacher = tf_mskd.create_model("resnet18", 100, exits="all", side_heads=heads)
    for exits in ("last", "all"):
        student = tf_mskd.create_model(
            "resnet10", 100, exits=exits, side_heads=method.side_heads
        )
        try:
            return training_case(
                tf_mskd.Distiller(student, teacher, method), (images, targets)
            )
        except tf_mskd.UserError:  # it trains several exits
            if exits == "all":
                raise
            method = registry.create_method(name, **arguments)


def measure_phases(name="resnet18"):
    """Progressive phase 1 against the joint step, deep supervision, one network."""
    import tf_mskd

    batch = digits_batch(BATCH.value)
    cases, distillers = {}, {}
    for phases in ("joint", "progressive"):
        student = tf_mskd.create_model(name, 100, exits="all")
        distiller = tf_mskd.Distiller(student, method="ce", phases=phases)
        cases[phases] = training_case(distiller, batch)
        distillers[phases] = distiller
    seconds = interleave(cases, REPEATS.value, STEPS.value)
    rows = [[f"{name}, ce", "ms a step", "of joint"]]
    for phases, value in seconds.items():
        share = f"{value / seconds['joint']:.3f}"
        rows.append([phases, f"{1000 * value:.1f}", share])
    seconds["state"] = state_seconds(distillers["joint"])
    share = seconds["state"] / (CIFAR_IMAGES / BATCH.value * seconds["joint"])
    rows.append(["one state, of a CIFAR epoch", f"{1000 * seconds['state']:.1f}", ""])
    rows[-1][2] = f"{share:.5f}"
    return rows, seconds


def state_seconds(distiller):
    """Median seconds to write the state of a run, flushed to the disk."""
    from tf_mskd.checkpoint import States

    times = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        states = States(folder)
        for step in range(5):
            start = time.perf_counter()
            states.write(step, distiller.state_variables, {"step": step})
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure_input():
    """Images per second of the training stream under each augmentation."""
    import numpy as np

    from tf_mskd.data import augment, pipeline, sources

    images, labels = digits_batch(1792)
    split = sources.Split(np.tile(images, (16, 1, 1, 1)), np.tile(labels, 16))
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
    seconds = interleave(cases, REPEATS.value, 100)
    rows = [["augmentation", "images/s"]]
    rows += [[name, f"{batch_size / value:,.0f}"] for name, value in seconds.items()]
    return rows, seconds


def measure_memory():
    """Peak resident memory of a CIFAR-100 run of ResNet-10, batch 64, four exits."""
    if not DATA_DIR.value:
        return [["memory", "left out: give --data_dir of the prepared CIFAR-100"]], {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tf_mskd.train"]
        command += ["--flagfile=configs/cifar100/resnet10.flags", "--exits=all"]
        command += [f"--data_dir={DATA_DIR.value}", f"--run_dir={folder}/run"]
        command += ["--epochs=1", "--train_fraction=0.03", "--notensorboard"]
        command += ["--lr_schedule=constant"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    rows = [["CIFAR-100, ResNet-10, batch 64", "peak resident GB"]]
    return rows + [["train", f"{peak / 1e9:.2f}"]], {"peak_bytes": peak}


def main():
    """Runs the parts, prints their tables and saves the numbers."""
    from tf_mskd.report import as_text

    numbers = {"cores": os.cpu_count(), "batch_size": BATCH.value}
    jobs = []
    if "steps" in PARTS.value:
        jobs += [(f"steps {p}", lambda p=p: measure_steps(p)) for p in PAIRS.value]
        jobs += [("phases", measure_phases)]
    if "methods" in PARTS.value:
        jobs += [("methods", measure_methods)]
    if "input" in PARTS.value:
        jobs += [("input", measure_input)]
    if "memory" in PARTS.value:
        jobs += [("memory", measure_memory)]
    for name, job in jobs:
        rows, numbers[name] = job()
        print(as_text(rows), end="\n\n", flush=True)
    if SAVE.value:
        pathlib.Path(SAVE.value).mkdir(parents=True, exist_ok=True)
        files.write_json(pathlib.Path(SAVE.value) / "benchmark.json", numbers)


if __name__ == "__main__":
    cli.run(main, __doc__)
