"""Trains a network: a teacher, a plain student, or a student under a teacher.

    python -m tf_mskd.train --flagfile=configs/digits/mskd.flags --run_dir=runs/mskd

Settings after --flagfile win over the file's. The same command again goes on where the
run was stopped, or says that it is finished.
"""

from absl import flags

from tf_mskd.runs import cli
from tf_mskd.runs.flags import config_from, define


def main():
    """Reads the flags and does the run."""
    config = config_from(flags.FLAGS)
    from tf_mskd.runs import (
        experiment,  # TensorFlow starts after the flags are known good
    )

    experiment.run(config)


if __name__ == "__main__":
    define()
    cli.run(main, __doc__)
