"""Trains a network: a teacher, a plain student, or a student under a teacher.

    python -m tf_mskd.train --flagfile=configs/digits/mskd.flags --run_dir=runs/mskd

Settings after --flagfile win over the file's. The same command resumes a run that was
interrupted, or reports that it is finished. --dry_run prints the runs that it would do.
"""

from absl import flags

from tf_mskd.runs import cli
from tf_mskd.runs.flags import define_run as define
from tf_mskd.runs.plan import describe, plan
from tf_mskd.utils.start import on_jax, start_jax, start_tensorflow


def main() -> None:
    """Reads the flags and does the run."""
    config = cli.config()
    runs = plan(config)
    if flags.FLAGS.dry_run:
        print(describe(runs))
        return
    if on_jax():
        start_jax()
        from tf_mskd.on_jax import experiment as jax_experiment

        jax_experiment.run(config)
        return
    start_tensorflow()
    from tf_mskd.runs import experiment

    experiment.run(config)


if __name__ == "__main__":
    cli.run(main, define, __doc__)
