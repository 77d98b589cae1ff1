"""The data of one run: a source, its split and the streams over it."""

import dataclasses

import numpy as np

from tf_mskd.data import augment, pipeline
from tf_mskd.data.augment_options import Options
from tf_mskd.runs.mixing import build_mixing
from tf_mskd.runs.source import load, split
from tf_mskd.runs.task import build_task


class Data:
    """The images of a run, split, and the streams over them.

    Args:
        config: `Config`.
        method: `Method`, whose steps may need more than labels, or None.
        source: `Source` of `load`, or None to read it here.
    """

    def __init__(self, config, method=None, source=None):
        self.config = config
        self._keys = method.target_keys if method else ()
        self._num_negatives = getattr(method, "num_negatives", 0)
        self.source = source or load(config)
        self.train_ids, self.validation_ids = split(config, self.source)
        self.steps_per_epoch = pipeline.steps_per_epoch(
            self.train_ids, config.batch_size
        )
        options = _options(config)
        self._augment = augment.make_augment(config.augment, **options)
        text = ", ".join(f"{name} {value}" for name, value in options.items())
        self.augmentation = f"{','.join(config.augment)}; {text}"
        second = config.second_augment or config.augment
        self._second_augment = augment.make_augment(second, **options)
        self._mixing = build_mixing(config, method, self.source.num_classes)
        self.train_stream(0)  # what it refuses shows now, not after a teacher's run

    def train_stream(self, start_step, teacher_rows=None, part=(0, 1)):
        """Batches from the global step on, to the end of the run.

        With `teacher_rows`, a `TeacherCache`, to the end of the epoch: the rows of the
        next one may be missing yet.
        """
        epochs = self.config.epochs
        if teacher_rows is not None:
            epochs = start_step // self.steps_per_epoch + 1
        return pipeline.train_stream(
            self.source.train,
            self.train_ids,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            augment=self._augment,
            start_step=start_step,
            num_steps=self.steps_per_epoch * epochs,
            target_keys=self._keys,
            num_negatives=self._num_negatives,
            second_augment=self._second_augment,
            views=self.config.views,
            view_seed=self.config.augment_seed,
            teacher_rows=teacher_rows,
            mixing=self._mixing,
            repeats=self.config.repeats,
            part=part,
        )

    def view_stream(self, view, ids):
        """The training images at `ids`, in order, as the epochs of a view see them."""
        return pipeline.eval_stream(
            self.source.train,
            ids,
            batch_size=self.config.batch_size,
            augment=self._augment,
            seed=self.config.augment_seed,
            view=view,
        )

    def validation_stream(self):
        """The held-out training images, or None without a validation split."""
        if not len(self.validation_ids):
            return None
        return self._as_they_are(self.validation_ids)

    def held_out_stream(self, limit):
        """At most `limit` of the training images that no step of the run sees.

        First come those of the validation split, then those that `train_fraction` left
        out, drawn at random (by the run's seed) where there are more.

        Args:
            limit: int > 0.

        Returns:
            `tf.data.Dataset` of `pipeline.eval_stream`, in the order of the positions.

        Raises:
            UserError: if the run saw every image.
        """
        count = len(self.source.train.labels)
        used = np.union1d(self.train_ids, self.validation_ids)
        parts = self.validation_ids, np.setdiff1d(np.arange(count), used)
        generator = np.random.default_rng(self.config.seed)
        ids = np.concatenate([generator.permutation(part) for part in parts])
        return self._as_they_are(np.sort(ids[:limit]))

    def _as_they_are(self, ids):
        return pipeline.eval_stream(
            self.source.train, ids, batch_size=self.config.eval_batch_size
        )

    def gallery_stream(self):
        """The training images as they are, None unless the task searches in them."""
        searches = build_task(self.config).searches
        return self.plain_train_stream() if searches else None

    def plain_train_stream(self):
        """The training images as they are, in order, once each."""
        return self._as_they_are(self.train_ids)

    def test_stream(self):
        """The test images."""
        return pipeline.eval_stream(
            self.source.test, batch_size=self.config.eval_batch_size
        )


def _options(config):
    """The options of `make_augment`; newer ones where set, as caches keep the text."""
    usual = ("crop_padding", "rotation_degrees", "cutout_size")
    fields = dataclasses.fields(Options)
    values = {f.name: (getattr(config, f.name), f.default) for f in fields}
    return {
        name: value
        for name, (value, default) in values.items()
        if name in usual or value != default
    }
