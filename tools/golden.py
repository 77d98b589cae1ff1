"""Writes the losses and weights that a change of the code must not move in silence.

    python tools/golden.py --why="CHANGELOG line that says what moved them" --save=FILE

Eight steps on the built-in digits of each of six methods on each of two networks, under
an untrained teacher. `tests/golden/losses.json` is such a file, and
`tools/compare_losses.py` compares two of them.
"""

import dataclasses
import hashlib
import os
import pathlib
import platform
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tf_mskd.runs import cli
from tf_mskd.runs.config import Config  # noqa: E402
from tf_mskd.utils import files  # noqa: E402
from tf_mskd.utils.errors import UserError  # noqa: E402
from tf_mskd.utils.start import start_tensorflow  # noqa: E402

STEPS = 8
THREADS = "TF_NUM_INTRAOP_THREADS"  # how many share the sums of an operation
METHODS = ("kd", "mskd", "oto", "dkd", "at", "dml")
NETWORKS = ("resnet10", "vgg8")
BASE = Config(
    dataset="digits",
    augment="crop",
    crop_padding=1,
    batch_size=16,
    width=0.125,
    epochs=1,
    lr=0.001,
    lr_schedule="constant",
    l2=5e-4,
)


def define():
    """Defines the flags of the tool."""
    flags.DEFINE_string("save", "", "File to write; required.")
    flags.DEFINE_string("why", "", "What moved the numbers, as the changelog has it.")


def configs():
    """The settings of every case, dict: name -> `Config`."""
    return {
        f"{method}, {network}": dataclasses.replace(
            BASE,
            method=method,
            model=network,
            exits="last" if method == "kd" else "all",
        )
        for method in METHODS
        for network in NETWORKS
    }


def trajectory(config):
    """Trains for eight steps.

    Args:
        config: `Config`.

    Returns:
        dict: "losses" list of float, "norm" float, the 2-norm of all weights of the
        student, "sha256" str, of their bytes.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from tf_mskd.runs import build
    from tf_mskd.runs.data import Data

    keras.utils.clear_session()
    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()
    method = build.build_method(config)
    data = Data(config, method)
    peer = dataclasses.replace(config, width=2 * config.width)
    teacher = build.build_network(peer, data.source)
    distiller = build.build_distiller(config, data.source, teacher, None, method)
    build.compile_distiller(distiller, config, data.steps_per_epoch)
    losses = []
    for images, targets in data.train_stream(0).take(STEPS):
        distiller.reset_metrics()
        logs = distiller.train_on_batch(images, targets, return_dict=True)
        losses.append(float(logs["loss"]))
    weights = [np.asarray(weight) for weight in distiller.student.get_weights()]
    squares = [np.square(weight, dtype=np.float64).sum() for weight in weights]
    digest = hashlib.sha256(b"".join(weight.tobytes() for weight in weights))
    norm = float(np.sqrt(sum(squares)))
    return {"losses": losses, "norm": norm, "sha256": digest.hexdigest()}


def machine():
    """What the last bits of a number depend on, dict of str."""
    from importlib import metadata

    return {
        "processor": _processor(),
        "threads": os.environ.get(THREADS, ""),
        **{name: metadata.version(name) for name in ("tensorflow", "keras", "numpy")},
    }


def _processor():
    """Name of the processor and a digest of its instruction sets."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    known = {}
    for line in lines:
        name, _, value = line.partition(":")
        known.setdefault(name.strip(), value.strip())
    sets = hashlib.sha256(known.get("flags", "").encode()).hexdigest()[:8]
    return f"{known.get('model name', '')}, {sets}"


def main():
    """Writes the file."""
    if not flags.FLAGS.save:
        raise UserError("--save is empty: name the file to write.")
    os.environ[THREADS] = "1"  # as in the tests
    start_tensorflow()
    cases = {name: trajectory(config) for name, config in configs().items()}
    record = {"why": flags.FLAGS.why, "machine": machine(), "cases": cases}
    files.write_json(pathlib.Path(flags.FLAGS.save), record)


if __name__ == "__main__":
    cli.run(main, define, __doc__)
