"""Loaders of what a batch delivers beside its images, labels and positions.

A loader, load(batch) -> dict of targets, runs inside a `tf.data` map; `batch` is a
`Batch` of tensors. `LOADERS` has one maker for each target of `utils.targets` that is
not in every batch.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tf_mskd.data.arrays import Split
from tf_mskd.data.partners import Partners
from tf_mskd.data.views import augmented, read_images
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.targets import target_spec

OTHER, SECOND = 1_000_003, 2_000_003  # added to the seed: draws of their own


class Batch(typing.NamedTuple):
    """One batch as it was fetched, before augmentation."""

    images: tf.Tensor  # uint8 [B, H, W, C]
    targets: dict[str, tf.Tensor]  # of the split, each [B, ...]
    index: tf.Tensor  # int64 [B], positions in the split
    view: tf.Tensor  # int64 scalar or [B], which augmentation
    step: tf.Tensor  # int64 scalar

    @property
    def label(self) -> tf.Tensor:
        """The target "label"."""
        return self.targets["label"]


Loader = Callable[[Batch], dict[str, typing.Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Supply:
    """What the targets of a stream are drawn from; see `pipeline.train_stream`."""

    split: Split
    ids: np.ndarray
    seed: int
    view_seed: int
    num_negatives: int
    augment: Callable | None
    second_augment: Callable | None

    @functools.cached_property
    def partners(self) -> Partners:
        """Draws of other classes, one object for all targets that need it."""
        return Partners(np.asarray(self.split.labels), self.ids, self.seed)

    def call(
        self, function: Callable, inputs: list[tf.Tensor], name: str, batch: Batch
    ) -> tf.Tensor:
        """A NumPy function as an operation whose result has the target's spec."""
        size, image_shape = batch.label.shape[0], batch.images.shape[1:]
        shape, dtype = target_spec(name, size, image_shape, self.num_negatives)
        result = tf.numpy_function(function, inputs, tf.as_dtype(dtype))
        return tf.ensure_shape(result, shape)


def negatives_loader(supply: Supply) -> Loader:
    """The loader of "negatives": distinct positions of other classes.

    Raises:
        UserError: if the data have fewer examples of other classes than requested.
    """
    count, most = supply.num_negatives, supply.partners.largest_draw()
    if not 0 < count <= most:
        raise UserError(
            f"The method requests {count} negatives for each image; these data have 1 "
            f"to {most} of other classes: set num_negatives in --method_args."
        )

    def draw(label, step):
        return supply.partners.many(label, int(step), count)

    def negatives(batch):
        inputs = [batch.label, batch.step]
        return {"negatives": supply.call(draw, inputs, "negatives", batch)}

    return negatives


def other_image_loader(supply: Supply) -> Loader:
    """The loader of "other_image": an image of another class, augmented alike."""
    seed = supply.view_seed + OTHER

    def draw(label, step):
        return supply.partners.one(label, int(step))

    def other_image(batch):
        index = supply.call(draw, [batch.label, batch.step], "index", batch)
        images = read_images(supply.split, index, seed, batch.view, supply.augment)
        images = augmented(images, index, batch.view, seed, supply.augment)
        return {"other_image": images}

    return other_image


def second_view_loader(supply: Supply) -> Loader:
    """The loader of "second_view": the same images, augmented with other draws."""
    seed, augment = supply.view_seed + SECOND, supply.second_augment

    def second_view(batch):
        images = batch.images
        if augment is not None and augment.cuts_files:
            images = read_images(supply.split, batch.index, seed, batch.view, augment)
        images = augmented(images, batch.index, batch.view, seed, augment)
        return {"second_view": images}

    return second_view


LOADERS = {
    "negatives": negatives_loader,
    "other_image": other_image_loader,
    "second_view": second_view_loader,
}


def loaders(target_keys: Sequence[str], supply: Supply) -> list[Loader]:
    """Returns the loaders of those targets that are not in every batch."""
    return [make(supply) for name, make in LOADERS.items() if name in target_keys]


def teacher_loader(teacher_rows: typing.Any) -> Loader:
    """The loader of "teacher": float16 [B, D] of each output in a cache.

    Args:
        teacher_rows: `TeacherCache`, or anything with its `sizes` and `read`.
    """
    sizes = teacher_rows.sizes

    def read(view, index):
        rows = teacher_rows.read(view, index)
        return [rows[name] for name in sizes]

    def teacher(batch):
        types = [tf.float16] * len(sizes)
        rows = tf.numpy_function(read, [batch.view, batch.index], types)
        named = zip(sizes.items(), rows, strict=True)
        length = batch.index.shape[0]
        return {
            "teacher": {n: tf.ensure_shape(v, (length, size)) for (n, size), v in named}
        }

    return teacher
