"""Fills a teacher cache ahead of the runs that use it.

    python -m tf_mskd.cache --flagfile=configs/pairs/cifar100_vgg13_vgg8.flags \\
        --flagfile=configs/methods/mskd.flags \\
        --run_dir=runs/cifar100/mskd --teacher_cache=runs/cifar100/cache \\
        --cached_augmentations=8

Takes the flags of the run. It trains the teacher first if that has not been done; the
run itself is not started. The same command resumes where it was interrupted. --dry_run
prints the runs that it would do first.
"""

from absl import flags

from tf_mskd.runs import cli
from tf_mskd.runs.flags import define_run as define
from tf_mskd.runs.plan import describe, plan_cache
from tf_mskd.utils.start import start_tensorflow


def main() -> None:
    """Fills the cache and prints what it holds."""
    config = cli.config()
    runs = plan_cache(config)
    if flags.FLAGS.dry_run:
        print(describe(runs))
        return
    start_tensorflow()
    from tf_mskd.runs import experiment

    cache = experiment.fill_cache(config)
    space = cache.views * cache.bytes_per_view() / 1e6
    outputs = ", ".join(cache.sizes)
    print(f"{cache.folder} is full: {outputs}, {cache.views} views, {space:.1f} MB")


if __name__ == "__main__":
    cli.run(main, define, __doc__)
