"""Index-driven streams: which examples a step sees is a function of seed and step.

Batches of positions come first, then whole batches are fetched from memory and
augmented. There is no iterator state to save: a run resumes by naming the next step.
"""

import functools
import typing
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_mskd.data import extra_targets
from tf_mskd.data.arrays import Split
from tf_mskd.data.augment import Augmentation
from tf_mskd.data.extra_targets import Batch
from tf_mskd.data.mixing import Mixing
from tf_mskd.data.order import (
    check_batch_size,
    check_repeats,
    epoch_order,
    epoch_views,
    steps_per_epoch,
)
from tf_mskd.data.views import (
    augmented,
    check_windows,
    read_images,
    target_types,
    targets_of,
)
from tf_mskd.utils.cores import usable_cores
from tf_mskd.utils.errors import UserError

DRAWN_OVER_BATCHES = {"negatives", "other_image"}  # targets


def train_stream(
    split: Split,
    ids: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    augment: Augmentation | None,
    start_step: int,
    num_steps: int,
    target_keys: Sequence[str] = (),
    num_negatives: int = 0,
    second_augment: Augmentation | None = None,
    views: int = 0,
    view_seed: int | None = None,
    teacher_rows: typing.Any = None,
    mixing: Mixing | None = None,
    repeats: int = 1,
    part: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Shuffled, augmented batches of the global steps start_step .. num_steps - 1.

    Step s belongs to epoch s // steps_per_epoch; the epoch, modulo `views`, is also the
    view that `augment` draws; with `repeats` each has its own, see `order.epoch_views`.
    A stream that starts at step s equals the rest of one from 0.

    Args:
        split: `Split`, kept where it is: nothing is copied but the batches.
        ids: int64 [n], positions in `split` to train on.
        batch_size: int, examples of one global step over all replicas.
        seed: int >= 0, of the order.
        augment: `Augmentation` of `make_augment`, or None.
        start_step: int >= 0, first step to deliver.
        num_steps: int, one past the last step.
        target_keys: names of targets to deliver beside "label" and "index"; see
            `utils.targets.TARGETS`.
        num_negatives: int, width of "negatives".
        second_augment: function of `make_augment` for "second_view", or None.
        views: int >= 0, different views of each example; 0 gives one an epoch.
        view_seed: int >= 0, of the augmentation; None takes `seed`.
        teacher_rows: `TeacherCache` that holds the rows of these steps, or None.
        mixing: `Mixing` of the augmented batches, or None; "label" is then float32
            [batch_size, classes].
        repeats: int >= 1, how often an epoch has each of its images, in other views;
            it has the fewer images, see `order.epoch_order`.
        part: (k, n), deliver the k-th of n equal parts of every batch, and read no
            other images unless they are drawn or mixed over whole batches.

    Returns:
        `tf.data.Dataset` of (images, targets), sharded by data under a strategy:
            images: uint8 [batch_size / n, H, W, C].
            targets: those of the split, "index" and those of `target_keys`, as
                `utils.targets.TARGETS` describes them; with `teacher_rows` also
                "teacher": dict, output name -> float16 [batch_size / n, D].

    Raises:
        UserError: batch larger than the data, or a number out of range.
    """
    ids = _check_ids(split, ids)
    per_epoch = steps_per_epoch(ids, batch_size)
    _check_numbers(seed, start_step, num_steps)
    _check_changes(split, augment, mixing)
    check_repeats(repeats, views)
    view_seed = seed if view_seed is None else view_seed
    supply = extra_targets.Supply(
        split, ids, seed, view_seed, num_negatives, augment, second_augment
    )
    extras = extra_targets.loaders(target_keys, supply)
    if teacher_rows is not None:
        extras.append(extra_targets.teacher_loader(teacher_rows))

    own = part_of_batch(batch_size, part)
    mixes = mixing is not None or bool(DRAWN_OVER_BATCHES & set(target_keys))
    taken = slice(0, batch_size) if mixes else own
    count = taken.stop - taken.start

    @functools.lru_cache(maxsize=2)  # two: steps of adjacent epochs run in parallel
    def order(epoch):
        return epoch_order(ids, seed, epoch, repeats)

    def fetch(step):
        epoch, position = divmod(int(step), per_epoch)
        places = position * batch_size + np.arange(taken.start, taken.stop)
        index, view = order(epoch)[places], epoch_views(epoch, repeats, views)
        view = view[0] if repeats == 1 else view[places % repeats]
        return *targets_of(split, index), index, view

    def load(step):
        types = (*target_types(split), tf.int64, tf.int64)
        *targets, index, view = tf.numpy_function(fetch, [step], types)
        targets = _shaped(split, targets, count)
        index = tf.ensure_shape(index, (count,))
        view = tf.ensure_shape(view, () if repeats == 1 else (count,))
        images = read_images(split, index, view_seed, view, augment)
        batch = Batch(images, targets, index, view, step)
        targets = _moved(split, targets, index, batch.view, view_seed, augment)
        targets["index"] = index
        for extra in extras:
            targets.update(extra(batch))
        images = augmented(batch.images, batch.index, batch.view, view_seed, augment)
        if mixing is not None:
            images, targets["label"] = mixing(images, batch.label, seed, step)
        if taken != own:
            return tf.nest.map_structure(lambda x: x[own], (images, targets))
        return images, targets

    return _stream(tf.data.Dataset.range(start_step, num_steps), load)


def _check_numbers(seed, start_step, num_steps):
    if seed < 0:
        raise UserError(f"seed must be >= 0, got {seed!r}.")
    if not 0 <= start_step <= num_steps:
        raise UserError(
            f"start_step must be in [0, num_steps = {num_steps}], got {start_step!r}."
        )


def _check_changes(split, augment, mixing):
    """Refuses what cannot be done to the images of a split."""
    if split.maps and augment is not None:
        augment.check_maps()
    if split.pictures and augment is not None:
        augment.check_pictures()
    check_windows(split, augment)
    if mixing is not None:
        mixing.check_split(split)


def part_of_batch(batch_size: int, part: tuple[int, int]) -> slice:
    """Returns the rows of a batch that belong to the k-th of n parts, (k, n).

    Raises:
        UserError: if a batch cannot be divided into so many equal parts.
    """
    k, parts = part
    if batch_size % parts:
        raise UserError(
            f"batch_size must divide into {parts} equal parts, got {batch_size}."
        )
    size = batch_size // parts
    return slice(k * size, (k + 1) * size)


def eval_stream(
    split: Split,
    ids: np.ndarray | None = None,
    *,
    batch_size: int,
    augment: Augmentation | None = None,
    seed: int = 0,
    view: int = 0,
) -> tf.data.Dataset:
    """Every example exactly once, in the order of `ids`; not augmented unless told.

    The last batch is padded to full size with weight 0, so that each replica of a
    strategy always has rows and one program serves all batches.

    Args:
        split: `Split`.
        ids: int64 [n], positions in `split`; None takes all.
        batch_size: int, rows of each global batch.
        augment: `Augmentation` of `make_augment`, or None.
        seed, view: int >= 0, which augmentation; see `train_stream`.

    Returns:
        `tf.data.Dataset` of (images, targets, weight):
            images: uint8 [batch_size, H, W, C]; padding repeats the first example.
            targets: those of the split, ints as int32 and floats as float32
                [batch_size, ...], and "index", int64 [batch_size], -1 of padding.
            weight: float32 [batch_size], 1, or 0 for padding.

    Raises:
        UserError: no examples, or a number out of range.
    """
    ids = np.arange(len(split.labels)) if ids is None else ids
    ids = _check_ids(split, ids)
    check_batch_size(batch_size)
    if not len(ids):
        raise UserError("There are no examples to evaluate; choose another split.")

    def fetch(step):
        index = ids[int(step) * batch_size : (int(step) + 1) * batch_size]
        padding = batch_size - len(index)
        rows = np.concatenate([index, np.full(padding, ids[0])])
        index = np.concatenate([index, np.full(padding, -1)])
        weight = (index >= 0).astype(np.float32)
        return *targets_of(split, rows), rows, index, weight

    def load(step):
        types = (*target_types(split), tf.int64, tf.int64, tf.float32)
        *targets, rows, index, weight = tf.numpy_function(fetch, [step], types)
        targets = _shaped(split, targets, batch_size)
        rows, index, weight = (
            tf.ensure_shape(v, (batch_size,)) for v in (rows, index, weight)
        )
        images = read_images(split, rows, seed, np.int64(view), augment)
        targets = _moved(split, targets, index, np.int64(view), seed, augment)
        images = augmented(images, index, np.int64(view), seed, augment)
        return images, {**targets, "index": index}, weight

    num_batches = -(-len(ids) // batch_size)
    return _stream(tf.data.Dataset.range(num_batches), load)


def _stream(steps, load):
    options = tf.data.Options()
    # Every worker reads the whole stream and keeps its part of each batch: the
    # global batches hold the same examples as on one device.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    options.deterministic = True
    # Its thread sleeps for up to a minute, and the end of an iterator may wait for it.
    options.autotune.enabled = False
    stream = steps.map(load, num_parallel_calls=usable_cores())
    return stream.prefetch(2).with_options(options)


def _moved(split, targets, index, view, seed, augment):
    """The targets, maps and pictures under the augmentation of their images."""
    if augment is None:
        return dict(targets)
    moved = {n: augment.maps(targets[n], index, seed, view) for n in split.maps}
    pictures = {n: augment(targets[n], index, seed, view) for n in split.pictures}
    return {**targets, **moved, **pictures}


def _shaped(split, targets, batch_size):
    """Fetched targets as a dict, of known shapes."""
    shapes = [(batch_size, *array.shape[1:]) for array in split.targets.values()]
    targets = map(tf.ensure_shape, targets, shapes)
    return dict(zip(split.targets, targets, strict=True))


def _check_ids(split, ids):
    ids = np.asarray(ids, np.int64)
    size = len(split.labels)
    wrong = ids[(ids < 0) | (ids >= size)]
    if wrong.size:
        raise UserError(
            f"ids must be positions in a split of {size} examples, got {int(wrong[0])}."
        )
    return ids
