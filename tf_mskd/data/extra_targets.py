"""What a batch may bring along beside its images, labels and positions.

Each function returns a loader, load(batch) -> dict of targets, that runs inside a
`tf.data` map; `batch` is a `Batch` of tensors.
"""

import typing

import numpy as np
import tensorflow as tf

from tf_mskd.data.partners import Partners
from tf_mskd.utils.errors import UserError

OTHER, SECOND = 1_000_003, 2_000_003  # added to the seed: draws of their own


class Batch(typing.NamedTuple):
    """One batch as it was fetched, before augmentation."""

    images: tf.Tensor  # uint8 [B, H, W, C]
    label: tf.Tensor  # int32 [B]
    index: tf.Tensor  # int64 [B], positions in the split
    view: tf.Tensor  # int64 scalar, which augmentation
    step: tf.Tensor  # int64 scalar


def augmented(images, index, view, seed, function):
    """Images under an augmentation of `make_augment`, or as they are if it is None."""
    if function is None:
        return images
    return tf.ensure_shape(function(images, index, seed, view), images.shape)


def partner_loaders(split, ids, seed, view_seed, target_keys, num_negatives, augment):
    """Loaders of "negatives" and "other_image", as far as `target_keys` has them.

    Raises:
        UserError: if the data have fewer examples of other classes than asked for.
    """
    if not {"negatives", "other_image"} & set(target_keys):
        return []
    partners = Partners(np.asarray(split.labels), ids, seed)
    most = partners.largest_draw()
    if "negatives" in target_keys and not 0 < num_negatives <= most:
        raise UserError(
            f"The method wants {num_negatives} negatives for each image; these data "
            f"have 1 to {most} of other classes: set num_negatives in --method_args."
        )

    def draw(label, step):
        return partners.many(label, int(step), num_negatives)

    def fetch(label, step):
        index = partners.one(label, int(step))
        return split.images[index], index

    def negatives(batch):
        drawn = tf.numpy_function(draw, [batch.label, batch.step], tf.int32)
        shape = (batch.label.shape[0], num_negatives)
        return {"negatives": tf.ensure_shape(drawn, shape)}

    def other_image(batch):
        types = (tf.uint8, tf.int64)
        images, index = tf.numpy_function(fetch, [batch.label, batch.step], types)
        images = tf.ensure_shape(images, batch.images.shape)
        index = tf.ensure_shape(index, batch.index.shape)
        seed = view_seed + OTHER
        return {"other_image": augmented(images, index, batch.view, seed, augment)}

    loaders = {"negatives": negatives, "other_image": other_image}
    return [loader for name, loader in loaders.items() if name in target_keys]


def second_view_loader(view_seed, augment):
    """The loader of "second_view": the same images, augmented with other draws."""

    def second_view(batch):
        seed = view_seed + SECOND
        images = augmented(batch.images, batch.index, batch.view, seed, augment)
        return {"second_view": images}

    return second_view


def teacher_loader(teacher_rows):
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
