"""Fills a teacher cache ahead of the runs that use it.

    python -m tf_mskd.cache --flagfile=configs/pairs/cifar100_vgg13_vgg8.flags \\
        --flagfile=configs/methods/mskd.flags \\
        --run_dir=runs/cifar100/mskd --teacher_cache=runs/cifar100/cache \\
        --cached_augmentations=8

Takes the flags of the run. It trains the teacher first if that has not been done; the
run itself is not started. The same command resumes where it was interrupted. --dry_run
prints the runs that it would do first. --part=2/4 fills the second of four equal parts
of the images in every view: several machines fill one folder at once, each its part.
"""

import typing

from absl import flags

from tf_mskd.runs import cli
from tf_mskd.runs.flags import define_run
from tf_mskd.runs.plan import describe, plan_cache
from tf_mskd.teacher_cache.parts import Part, read_part
from tf_mskd.utils.start import start_tensorflow


def define() -> None:
    """Defines the flags of this command: those of a run, and --part."""
    define_run()
    flags.DEFINE_string(
        "part",
        "",
        "Part of the training images to fill, such as 2/4, the second of four; empty: "
        "all.",
        module_name="teacher flags",
    )


def main() -> None:
    """Fills the cache and prints what it holds."""
    config, part = cli.config(), read_part(flags.FLAGS.part)
    runs = plan_cache(config)
    if flags.FLAGS.dry_run:
        print(describe(runs))
        return
    start_tensorflow()
    from tf_mskd.runs import experiment

    print(told(experiment.fill_cache(config, part), part))


def told(filled: typing.Any, part: Part | None) -> str:
    """Returns one line on what was filled, and what the whole cache lacks yet.

    Args:
        filled: `CachedTeacher`.
        part: `Part` that was filled, or None.
    """
    cache, missing = filled.cache, filled.lacking() if part else 0
    if missing:
        parts = [str(p.number) for p in part.siblings if filled.lacking(p)]
        return (
            f"part {part} of {cache.folder} is full; of the whole, {missing} of "
            f"{filled.count()} rows are missing yet, in part {', '.join(parts)} of "
            f"{part.count}"
        )
    space = cache.views * cache.bytes_per_view() / 1e6
    outputs = ", ".join(cache.sizes)
    return f"{cache.folder} is full: {outputs}, {cache.views} views, {space:.1f} MB"


if __name__ == "__main__":
    cli.run(main, define, __doc__)
