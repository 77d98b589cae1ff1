"""Writes the student of a finished run as SavedModel and TFLite files.

    python -m tf_mskd.export --run_dir=runs/digits/oto --output=exports/oto \\
        --quantize=none,int8

Every endpoint of every file is run on test images and compared with Keras; only if all
agree does the folder appear. Thresholds come from RUN/exits.json if tf_mskd.calibrate
has written it. What is in the files and how to run them: docs/deployment.md.
"""

from absl import flags

from tf_mskd.runs import cli
from tf_mskd.runs.inputs import check_finished_run
from tf_mskd.utils.choices import FORMATS, QUANTIZATIONS, STUDENTS
from tf_mskd.utils.start import silent_stderr, start_tensorflow
from tf_mskd.utils.tables import as_text


def define() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_string("run_dir", "", "Folder of a finished run; required.")
    flags.DEFINE_string("output", "", "Folder to make; required.")
    flags.DEFINE_list("format", list(FORMATS), f"Some of {', '.join(FORMATS)}.")
    flags.DEFINE_list(
        "quantize", ["none"], f"TFLite files: some of {', '.join(QUANTIZATIONS)}."
    )
    flags.DEFINE_integer(
        "exit",
        None,
        "Deepest exit to export; deeper exits and layers are dropped.",
    )
    flags.DEFINE_string(
        "exits_file", "", "Thresholds; RUN/exits.json if empty and there is one."
    )
    flags.DEFINE_string("data_dir", "", "Data folder instead of the run's.")
    flags.DEFINE_enum(
        "which", "last", list(STUDENTS), "Student: last epoch, or best by validation."
    )
    flags.DEFINE_boolean("overwrite", False, "Replace an earlier export.")


def main() -> None:
    """Exports and prints what was written."""
    values = flags.FLAGS
    check_finished_run(values.run_dir)
    start_tensorflow()
    from tf_mskd.runs import evaluation

    run = evaluation.FinishedRun(values.run_dir, values.data_dir)
    with silent_stderr():  # the converter and LiteRT report what they do
        record = evaluation.export_run(
            run,
            values.output,
            which=values.which,
            exits_file=values.exits_file,
            formats=values.format,
            quantize=values.quantize,
            deepest_exit=values.exit,
            overwrite=values.overwrite,
        )
    print(as_text(rows_of(record)))
    if "thresholds" in record:
        print(_decision_line(record))
    print(f"wrote {values.output}")


def _decision_line(record):
    calibrated = any(v <= 1 for v in list(record["thresholds"].values())[:-1])
    thresholds = "calibrated" if calibrated else "that no image reaches (no exits.json)"
    return (
        f"criterion {record['criterion']}, answer by {record['answer']}, thresholds "
        f"{thresholds}"
    )


def rows_of(record: dict) -> list[list[str]]:
    """The table that the command prints: a file's size and its worst endpoint."""
    rows = [["file", "bytes", "endpoints", "largest difference", "same class"]]
    for entry in record["files"]:
        endpoints = entry["verification"].values()
        difference = max(numbers["max_difference"] for numbers in endpoints)
        same = min(numbers["same_class"] for numbers in endpoints)
        rows.append([entry["file"], f"{entry['bytes']:,}", str(len(endpoints))])
        rows[-1] += [f"{difference:.1e}", f"{100 * same:.1f} %"]
    return rows


if __name__ == "__main__":
    cli.run(main, define, __doc__)
