"""Prepares a data set once, so that training reads it without a network.

python -m tf_mskd.data.prepare --dataset=tiny_imagenet --archive=ZIP --data_dir=DIR
python -m tf_mskd.data.prepare --dataset=cifar100 --data_dir=DIR

The second form downloads from the data set's own site: it is the only command of the
library that does.
"""

import os
import sys

from absl import flags, logging

from tf_mskd.data.tfds_sets import OWN_BUILDERS, find_builder
from tf_mskd.utils.errors import UserError

# A registry of its own: other commands define --dataset and --data_dir too.
FLAGS = flags.FlagValues()
flags.DEFINE_string("dataset", None, "Name of the data set.", flag_values=FLAGS)
flags.DEFINE_string("data_dir", None, "Directory to write to.", flag_values=FLAGS)
flags.DEFINE_string(
    "archive",
    None,
    "Zip file or extracted folder of a set that needs one (tiny_imagenet).",
    flag_values=FLAGS,
)
flags.DEFINE_boolean("help", False, "Show this help.", flag_values=FLAGS)


def prepare(dataset, data_dir, archive=None):
    """Writes a TFDS data set below `data_dir` unless it is there already.

    Args:
        dataset: str, TFDS name or "tiny_imagenet".
        data_dir: directory to write to, made if missing.
        archive: path, needed by "tiny_imagenet" and by no other set.

    Returns:
        str, one line that says what was found or written.

    Raises:
        UserError: wrong name, archive missing or broken, download failed.
    """
    import tensorflow_datasets as tfds

    _check_arguments(dataset, data_dir, archive)
    data_dir = os.path.expanduser(data_dir)
    builder = find_builder(dataset, data_dir)
    if builder.is_prepared():
        return f"Already prepared: {_summary(builder)}"
    if dataset in OWN_BUILDERS:
        if not archive:
            raise UserError(
                f"{dataset} is not downloaded for you; set --archive. "
                f"{builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
            )
        builder.archive = archive
    else:
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
    return f"Wrote {_summary(builder)}"


def main(argv=None):
    """Runs the command line; returns the exit code, 2 for a mistake of the user."""
    logging.set_verbosity(logging.ERROR)  # TFDS warns that the set is not there yet
    try:
        rest = FLAGS(sys.argv if argv is None else argv)[1:]
        if FLAGS.help:
            print(f"{__doc__}\n{FLAGS.get_help()}")
            return 0
        if rest:
            raise UserError(f"Unknown argument {rest[0]!r}; write --flag=value.")
        print(prepare(FLAGS.dataset, FLAGS.data_dir, FLAGS.archive))
    except (UserError, flags.Error) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


def _check_arguments(dataset, data_dir, archive):
    if not dataset or not data_dir:
        missing = "--data_dir" if dataset else "--dataset"
        raise UserError(f"{missing} is needed; see --help.")
    if dataset in ("digits", "folder"):
        raise UserError(f"Data set {dataset!r} needs no preparation.")
    if archive and dataset not in OWN_BUILDERS:
        raise UserError(
            f"--archive is for {', '.join(OWN_BUILDERS)}; {dataset!r} takes none."
        )


def _summary(builder):
    sizes = ", ".join(
        f"{split} {info.num_examples}" for split, info in builder.info.splits.items()
    )
    return f"{builder.info.full_name} in {builder.data_path} ({sizes} examples)"


if __name__ == "__main__":
    sys.exit(main())
