"""Fills a teacher cache ahead of the runs that use it.

    python -m tf_mskd.cache --flagfile=configs/cifar100/vgg8_mskd.flags \\
        --run_dir=runs/cifar100/mskd --teacher_cache=runs/cifar100/cache \\
        --cached_augmentations=8

Takes the flags of the run. It trains the teacher first if that has not been done, and
leaves the run itself alone. The same command again goes on where it was stopped.
"""

from absl import flags

from tf_mskd.runs import cli
from tf_mskd.runs.flags import config_from, define


def main():
    """Fills the cache and says what it holds."""
    config = config_from(flags.FLAGS)
    from tf_mskd.runs import (
        experiment,  # TensorFlow starts after the flags are known good
    )

    cache = experiment.fill_cache(config)
    space = cache.views * cache.bytes_per_view() / 1e6
    outputs = ", ".join(cache.sizes)
    print(f"{cache.folder} is full: {outputs}, {cache.views} views, {space:.1f} MB")


if __name__ == "__main__":
    define()
    cli.run(main, __doc__)
