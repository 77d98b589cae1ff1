"""The data set of a configuration, and which of its images a run learns from."""

import dataclasses

import numpy as np

from tf_mskd.data import sources, splits
from tf_mskd.runs.config import Config
from tf_mskd.runs.task import build_task
from tf_mskd.utils.run_paths import RunPaths


def load(config: Config) -> sources.Source:
    """Reads the data set of a configuration, with the task's labels."""
    task = build_task(config)
    source = sources.load_source(
        config.dataset,
        config.data_dir or None,
        config.image_size or None,
        resize=config.resize,
        test_fraction=config.test_fraction,
        patch_size=config.patch_size,
        dense=task.has_confidence,  # which has classes at every pixel
        memory="stream" if config.cuts_files else config.memory,
        skip_bad=config.skip_bad,
        centre_crop=config.centre_crop,
        index_dir=_index_dir(config),
    )

    def with_labels(split):
        label = task.labels_of(split.labels, source.num_classes)
        return dataclasses.replace(split, targets={**split.targets, "label": label})

    train, test = map(with_labels, (source.train, source.test))
    return dataclasses.replace(source, train=train, test=test)


def _index_dir(config):
    """Where a run that has a folder keeps what it found in the data, or None."""
    paths = RunPaths(config.run_dir) if config.run_dir else None
    return paths.data_index if paths and paths.folder.is_dir() else None


def split(config: Config, source: sources.Source) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions of the training images to learn from and to hold out."""
    return splits.split_ids(
        source.train.strata,
        validation_fraction=config.validation_fraction,
        train_fraction=config.train_fraction,
        seed=config.seed,
    )
