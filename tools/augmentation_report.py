"""Compares augmentation schemes: accuracy, and how steady the teacher's answers are.

    python tools/augmentation_report.py --run_dirs=runs/kd,runs/fraction_100

One line a finished run: its scheme, the student's accuracy on the test split, and the
spread of the teacher's mean probability over batches as the run trained on them; the
lower, the better the scheme (Wang, Lohit, Jones, Fu, "What Makes a 'Good' Data
Augmentation in Knowledge Distillation", NeurIPS 2022, arXiv 2012.02909). The teacher
must lie where the run found it.
"""

import pathlib
import sys

import numpy as np
from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tf_mskd.runs import cli
from tf_mskd.utils.errors import UserError  # noqa: E402
from tf_mskd.utils.start import start_tensorflow  # noqa: E402
from tf_mskd.utils.tables import as_text  # noqa: E402

BATCHES = 50  # unless told otherwise


def define():
    """Defines the flags of the tool."""
    flags.DEFINE_list("run_dirs", [], "Folders of finished runs; required.")
    flags.DEFINE_integer(
        "batches", BATCHES, "Training batches that the teacher answers.", lower_bound=2
    )


def spread(means):
    """Standard deviation of a mean probability over batches, mean over the classes.

    Args:
        means: float [batches, classes], the mean probabilities of each batch.

    Returns:
        float, in [0, 1].

    Example:
        >>> spread(np.array([[0.4, 0.6], [0.6, 0.4]])).round(4)  # of a sample: n - 1
        np.float64(0.1414)
    """
    return np.std(means, axis=0, ddof=1).mean()


def teacher_means(run, batches):
    """The teacher's mean probabilities [batches, classes] on a run's first batches.

    Args:
        run: `FinishedRun` with a teacher.
        batches: int >= 1, at most those of the run.
    """
    import keras

    from tf_mskd.models import exit_names
    from tf_mskd.runs import build
    from tf_mskd.runs.data import Data
    from tf_mskd.runs.networks import load_network

    config, path = run.config, run.teacher_path()
    if not path:
        raise UserError(f"{run.paths.folder} has no trained teacher: leave it out.")
    method = build.build_method(config, len(run.source.train.labels))
    teacher = load_network(path, build.teacher_source(config, run.source), config.task)
    distiller = build.build_distiller(config, run.source, teacher, None, method)
    last, means = exit_names(distiller.teacher)[-1], []
    for images, targets in (
        Data(config, method, run.source).train_stream(0).take(batches)
    ):
        rows, targets = distiller.augment(images, targets)
        seen = targets.get("teacher_view", rows)
        logits = distiller.teacher(seen, training=False)[last]
        means.append(keras.ops.mean(keras.ops.softmax(logits), axis=0))
    return np.asarray(means, np.float64)


def line_of(folder, batches):
    """One line of the table, as str."""
    from tf_mskd.runs.finished_run import FinishedRun
    from tf_mskd.runs.result import read_result
    from tf_mskd.utils.names import numbered

    run = FinishedRun(folder)
    config, result = run.config, read_result(run.paths.result)
    return (
        str(folder),
        config.method,
        ",".join(config.augment) or "none",
        ",".join(config.second_augment),
        f"{config.augment_fraction:g}",
        f"{config.train_fraction:g}",
        f"{100 * result.test[numbered(list(result.test), 'exit')[-1]]:.2f}",
        f"{spread(teacher_means(run, batches)):.5f}",
    )


def main():
    """Prints the table."""
    folders = flags.FLAGS.run_dirs
    if not folders:
        raise UserError("--run_dirs is empty: name folders of finished runs.")
    start_tensorflow()
    head = ("run", "method", "augment", "second", "fraction", "images", "accuracy %")
    lines = [line_of(folder, flags.FLAGS.batches) for folder in folders]
    print(as_text([(*head, "spread"), *lines]))


if __name__ == "__main__":
    cli.run(main, define, __doc__)
