"""Prepares a data set once, so that training reads it without a network.

python -m tf_mskd.data.prepare --dataset=tiny_imagenet --archive=ZIP --data_dir=DIR
python -m tf_mskd.data.prepare --dataset=cifar100 --data_dir=DIR
python -m tf_mskd.data.prepare --dataset=cifar100 --data_dir=DIR --npz=cifar100.npz
python -m tf_mskd.data.prepare --dataset=NAME --archive=PARQUET --data_dir=DIR

The second form downloads from the data set's own site: it is the only command of the
library that does. The third also writes the set to one file, for machines without TFDS.
The last copies the images of parquet files, as model hubs keep them, into a set of a
name of your choice.
"""

import os
import sys
from collections.abc import Sequence

from absl import flags, logging

from tf_mskd.utils import files
from tf_mskd.utils.choices import ARCHIVED_SETS
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.flag_errors import explain
from tf_mskd.utils.start import start_tensorflow

# A registry of its own: other commands define --dataset and --data_dir too.
FLAGS = flags.FlagValues()


def define() -> None:
    """Defines the flags of the command."""
    options = {"flag_values": FLAGS, "module_name": "prepare flags"}
    flags.DEFINE_string("dataset", None, "Name of the data set; required.", **options)
    flags.DEFINE_string("data_dir", None, "Folder to write to; required.", **options)
    flags.DEFINE_string(
        "archive",
        None,
        "Zip file or extracted folder of a set that needs one (tiny_imagenet), or a "
        "folder of parquet files, train-*.parquet and test-*.parquet.",
        **options,
    )
    column = "Column of the {} in parquet files, where several may be meant."
    flags.DEFINE_string("image_column", None, column.format("images"), **options)
    flags.DEFINE_string("label_column", None, column.format("classes"), **options)
    flags.DEFINE_string(
        "npz", None, "File that the set is written to as well, ends in .npz.", **options
    )


define()


def prepare(
    dataset: str,
    data_dir: str,
    archive: str | None = None,
    npz: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> str:
    """Writes a TFDS data set below `data_dir` unless it is there already.

    Args:
        dataset: str, TFDS name or "tiny_imagenet"; any other name for parquet files.
        data_dir: directory to write to, made if missing.
        archive: path, needed by "tiny_imagenet", or of a folder of parquet files.
        npz: path that ends in ".npz", to write images and class numbers to, or None.
        image_column, label_column: str, of parquet files, or None: the one that
            stands out, see `parquet_columns`.

    Returns:
        str, one line that says what was found or written.

    Raises:
        UserError: wrong name, archive missing or broken, download failed.
    """
    columns = image_column, label_column
    _check_arguments(dataset, data_dir, archive, npz, columns)
    start_tensorflow()
    import tensorflow_datasets as tfds

    data_dir = os.path.expanduser(data_dir)
    builder = _builder(dataset, data_dir, archive, columns)
    if builder.is_prepared():
        return f"Already prepared: {_summary(builder)}{_as_npz(dataset, data_dir, npz)}"
    if dataset in ARCHIVED_SETS:
        if not archive:
            raise UserError(
                f"{dataset} is not downloaded: name its archive with --archive. "
                f"{builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
            )
        builder.archive = archive
    elif not archive:
        print(f"Downloading {dataset} to {data_dir}; this needs a network.", flush=True)
    tfds.disable_progress_bar()
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except UserError:
        raise
    except Exception as error:  # network, disk and parser errors of many libraries
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"Could not prepare {dataset!r} in {data_dir}: {type(error).__name__}: "
            f"{reason}"
        ) from error
    return f"Wrote {_summary(builder)}{_as_npz(dataset, data_dir, npz)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        int, the exit code: 0 done, 1 unknown flag or bad value, 2 any other mistake of
        the user.
    """
    logging.set_verbosity(logging.ERROR)  # TFDS warns that the set is not there yet
    argv = list(sys.argv if argv is None else argv)
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(f"{__doc__.strip()}\n\n{FLAGS.module_help('prepare flags').strip()}")
        return 0
    try:
        rest = FLAGS(argv)[1:]
        if rest:
            raise UserError(
                f"Expected flags only, got {rest[0]!r}: write --name=value."
            )
        print(
            prepare(
                FLAGS.dataset,
                FLAGS.data_dir,
                FLAGS.archive,
                FLAGS.npz,
                FLAGS.image_column,
                FLAGS.label_column,
            )
        )
    except (UserError, flags.Error) as error:
        refused = isinstance(error, flags.Error)
        text = UserError(explain(error, FLAGS)) if refused else error
        print(f"error: {text}", file=sys.stderr)
        return 1 if refused else 2
    return 0


def _as_npz(dataset, data_dir, path):
    if not path:
        return ""
    from tf_mskd.data.npz_file import write_npz
    from tf_mskd.data.tfds_sets import load_tfds

    write_npz(path, load_tfds(dataset, data_dir))
    return f"; all of it in {path} too"


def _builder(dataset, data_dir, archive, columns):
    """The TFDS builder of a set, of parquet files where an archive says so."""
    if archive and dataset not in ARCHIVED_SETS:
        from tf_mskd.data.parquet_set import ParquetSet

        return ParquetSet(dataset, data_dir, archive, *columns)
    from tf_mskd.data.tfds_sets import find_builder

    return find_builder(dataset, data_dir)


def _check_arguments(dataset, data_dir, archive, npz, columns):
    if not dataset or not data_dir:
        missing = "--data_dir" if dataset else "--dataset"
        raise UserError(f"{missing} is needed; see --help.")
    if dataset in ("digits", "folder"):
        raise UserError(f"Data set {dataset!r} needs no preparation.")
    if npz and not files.is_npz(npz):
        raise UserError(f"--npz={npz} must end in .npz.")
    of_parquet = archive and dataset not in ARCHIVED_SETS
    if any(columns) and not of_parquet:
        raise UserError(
            "--image_column and --label_column are for parquet files, --archive=DIR "
            f"under a name of their own; {dataset!r} has none: leave them out."
        )
    if npz and of_parquet:
        raise UserError(
            "--npz is for images of one size, those of parquet files may differ: leave "
            "it out."
        )


def _summary(builder):
    sizes = ", ".join(
        f"{split} {info.num_examples}" for split, info in builder.info.splits.items()
    )
    return f"{builder.info.full_name} in {builder.data_path} ({sizes} examples)"


if __name__ == "__main__":
    sys.exit(main())
