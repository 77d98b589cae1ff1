"""Draws where the exits of a finished run look: Grad-CAM of student and teacher.

    python -m tf_mskd.explain --run_dir=runs/digits/oto
    python -m tf_mskd.explain --run_dir=runs/digits/oto --images=0,17,photo.png

Writes RUN/explain.png: a row for each image, with the map of every exit of the teacher
and of the student over the image, titled with the class that the exit tells and its
probability. Prints the same as a table.
"""

import importlib
import typing

from absl import flags

from tf_mskd.runs import cli
from tf_mskd.runs.inputs import check_finished_run, check_picture, read_image_choice
from tf_mskd.utils.choices import STUDENTS
from tf_mskd.utils.files import split_paths
from tf_mskd.utils.start import start_tensorflow
from tf_mskd.utils.tables import as_text

if typing.TYPE_CHECKING:
    from tf_mskd.training.grad_cam import grad_cam as grad_cam


def __getattr__(name):
    """`grad_cam`, imported when it is first used: it needs Keras, flags do not."""
    if name != "grad_cam":
        raise AttributeError(f"module 'tf_mskd.explain' has no attribute {name!r}")
    return importlib.import_module("tf_mskd.training.grad_cam").grad_cam


def define() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_string("run_dir", "", "Folder of a finished run; required.")
    flags.DEFINE_multi_string(
        "images",
        [],
        "Numbers of test images, from 0, and image files; commas between, or the flag "
        "again. If empty six test images: the first of each class, then the second.",
    )
    flags.DEFINE_string("output", "", "PNG to write; RUN/explain.png if empty.")
    flags.DEFINE_string("data_dir", "", "Data folder instead of the run's.")
    flags.DEFINE_enum(
        "which", "last", list(STUDENTS), "Student: last epoch, or best by validation."
    )


def main() -> None:
    """Draws, and prints what the exits tell."""
    values = flags.FLAGS
    check_finished_run(values.run_dir)
    check_picture(values.output)
    given = [text for part in values.images for text in split_paths(part)]
    chosen = [read_image_choice(text) for text in given]
    start_tensorflow()
    from tf_mskd.runs.explanation import explain_run
    from tf_mskd.runs.finished_run import FinishedRun

    run = FinishedRun(values.run_dir, values.data_dir)
    table = explain_run(run, chosen, values.output, values.which)
    print(as_text(table))
    print(f"wrote {values.output or run.paths.explanation}")


if __name__ == "__main__":
    cli.run(main, define, __doc__)
