"""Writes the student of a finished run as SavedModel and TFLite files.

    python -m tf_mskd.export --run_dir=runs/digits/oto --output=exports/oto \\
        --quantize=none,int8

Every endpoint of every file is run on test images and compared with Keras; only if all
agree does the folder appear. Thresholds come from RUN/exits.json if tf_mskd.calibrate
has written it. What is in the files and how to run them: docs/deployment.md.
"""

import numpy as np
from absl import flags

from tf_mskd.deployment import FORMATS, QUANTIZATIONS, export_student
from tf_mskd.runs import cli
from tf_mskd.runs.inputs import check_finished_run

NUM_CALIBRATION = 400  # training images that the ranges of int8 come from


def define():
    """Defines the flags of the command."""
    flags.DEFINE_string("run_dir", "", "Folder of a finished run; required.")
    flags.DEFINE_string("output", "", "Folder to make; required.")
    flags.DEFINE_list("format", list(FORMATS), f"Some of {', '.join(FORMATS)}.")
    flags.DEFINE_list(
        "quantize", ["none"], f"TFLite files: some of {', '.join(QUANTIZATIONS)}."
    )
    flags.DEFINE_integer(
        "exit", None, "Leave out all that only exits behind this one need."
    )
    flags.DEFINE_string(
        "exits_file", "", "Thresholds; RUN/exits.json if empty and there is one."
    )
    flags.DEFINE_string("data_dir", "", "Data folder instead of the run's.")
    flags.DEFINE_enum(
        "which", "last", ["last", "best"], "Student: last epoch, or best by validation."
    )
    flags.DEFINE_boolean("overwrite", False, "Take the place of an earlier export.")


def export_run(run_dir, output, data_dir="", which="last", exits_file="", **options):
    """Exports the student of a finished run, see `export_student`.

    Args:
        run_dir: str or path of the run folder.
        output: str or path of the folder to make.
        data_dir: str, folder of the prepared data instead of the run's own.
        which: "last" or "best" (by the validation split).
        exits_file: path of thresholds; "" for the run's exits.json if there is one
            (which is that of the last epoch), else none.
        **options: further arguments of `export_student`.

    Returns:
        dict, the content of export.json.

    Raises:
        UserError: if the folder holds no finished run or its data are missing, and as
            `export_student` does.
    """
    from tf_mskd.data.sources import load_source
    from tf_mskd.deployment.export import check_output
    from tf_mskd.deployment.verification import NUM_IMAGES
    from tf_mskd.runs.finished_run import FinishedRun

    run = FinishedRun(run_dir, data_dir)
    check_output(output, options.get("overwrite", False))  # before the data are read
    config = run.config
    source = load_source(
        config.dataset, config.data_dir or None, config.image_size or None
    )
    usual = run.folder / "exits.json"
    if not exits_file and which == "last" and usual.is_file():
        exits_file = usual
    return export_student(
        run.student(which),
        output,
        spread(source.test.images, NUM_IMAGES),
        exits_file=exits_file or None,
        calibration_images=spread(source.train.images, NUM_CALIBRATION),
        class_names=source.class_names,
        **options,
    )


def spread(images, count):
    """At most `count` of the images, evenly spaced: all classes of a sorted folder."""
    places = np.linspace(0, len(images) - 1, min(count, len(images)))
    return images[places.round().astype(int)]


def rows_of(record):
    """The table that the command prints: a file's size and its worst endpoint."""
    rows = [["file", "bytes", "endpoints", "largest difference", "same class"]]
    for entry in record["files"]:
        proofs = entry["proof"].values()
        difference = max(proof["max_difference"] for proof in proofs)
        same = min(proof["same_class"] for proof in proofs)
        rows.append([entry["file"], f"{entry['bytes']:,}", str(len(proofs))])
        rows[-1] += [f"{difference:.1e}", f"{100 * same:.1f} %"]
    return rows


def main():
    """Exports and prints what was written."""
    from tf_mskd.utils.tables import as_text

    values = flags.FLAGS
    check_finished_run(values.run_dir)
    record = export_run(
        values.run_dir,
        values.output,
        data_dir=values.data_dir,
        which=values.which,
        exits_file=values.exits_file,
        formats=values.format,
        quantize=values.quantize,
        deepest_exit=values.exit,
        overwrite=values.overwrite,
    )
    print(as_text(rows_of(record)))
    given = any(value <= 1 for value in list(record["thresholds"].values())[:-1])
    print(
        f"rule {record['rule']}, answer by {record['answer']}, thresholds "
        + ("calibrated" if given else "that no image reaches (no exits.json)")
    )
    print(f"wrote {values.output}")


if __name__ == "__main__":
    cli.run(main, define, __doc__)
