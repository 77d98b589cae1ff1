"""Streams: order, resumption, views, padding, and use under a strategy."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tf_mskd.data import pipeline
from tf_mskd.data.augment import make_augment
from tf_mskd.data.mixing import Mixing
from tf_mskd.utils.errors import UserError


def stream(digits, ids, start=0, stop=20, **changes):
    arguments = {"batch_size": 16, "seed": 3, "augment": make_augment("crop,flip")}
    arguments.update(changes)
    return pipeline.train_stream(
        digits.train, ids, start_step=start, num_steps=stop, **arguments
    )


def arrays(dataset):
    return [
        (images.numpy(), targets["label"].numpy(), targets["index"].numpy())
        for images, targets in dataset
    ]


def test_shapes_are_static_and_labels_belong_to_images(digits, ids):
    dataset = stream(digits, ids, augment=None)
    images, targets = dataset.element_spec
    assert images == tf.TensorSpec((16, 8, 8, 1), tf.uint8)
    assert targets["label"] == tf.TensorSpec((16,), tf.int32)
    assert targets["index"] == tf.TensorSpec((16,), tf.int64)
    assert len(dataset) == 20
    policy = dataset.options().experimental_distribute.auto_shard_policy
    assert policy == tf.data.experimental.AutoShardPolicy.DATA
    assert dataset.options().autotune.enabled is False  # no end of one waits for it
    for images, label, index in arrays(dataset):
        assert np.array_equal(images, digits.train.images[index])
        assert np.array_equal(label, digits.train.labels[index])


@pytest.mark.parametrize(
    ("names", "starts"),
    [("crop,flip", (1, 8, 9, 13, 19, 20)), ("rotate,autoaugment,cutout", (13,))],
)
def test_resumed_stream_equals_the_rest_of_the_first(digits, ids, names, starts):
    augment = make_augment(names, cutout_size=4)
    whole = arrays(stream(digits, ids, augment=augment))
    for start in starts:
        rest = arrays(stream(digits, ids, start, augment=augment))
        assert len(rest) == 20 - start
        for expected, got in zip(whole[start:], rest, strict=True):
            assert all(map(np.array_equal, expected, got))


PARTS = {
    "plain": {},
    "two views": {"target_keys": ("second_view",)},
    "partners": {"target_keys": ("negatives", "other_image"), "num_negatives": 4},
    "mixed": {"mixing": Mixing(mixup=0.2, cutmix=1.0, num_classes=10)},
    "repeated": {"repeats": 3},
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_batches_are_those_of_whole_batches(digits, ids, name):
    changes = PARTS[name] | {"second_augment": make_augment("crop,flip")}
    whole = list(stream(digits, ids, 7, 12, **changes))
    parts = [list(stream(digits, ids, 7, 12, part=(k, 4), **changes)) for k in range(4)]
    for step, expected in enumerate(whole):
        joined = tf.nest.map_structure(
            lambda *x: tf.concat(x, axis=0), *(part[step] for part in parts)
        )
        tf.nest.map_structure(np.testing.assert_array_equal, joined, expected)


def test_a_part_reads_no_other_images(digits, ids):
    class Counted:
        shape, read = digits.train.images.shape, []

        def __getitem__(self, index):
            self.read.append(len(index))
            return digits.train.images[index]

    split = dataclasses.replace(digits.train, images=Counted())
    own = dataclasses.replace(digits, train=split)
    list(stream(own, ids, stop=5, part=(1, 2)))
    assert Counted.read == [8] * 5
    with pytest.raises(UserError, match="divide into 3 equal parts, got 16"):
        stream(digits, ids, part=(0, 3))


def test_epochs_are_different_permutations_of_the_ids(digits, ids):
    per_epoch = pipeline.steps_per_epoch(ids, 16)
    assert per_epoch == len(ids) // 16 == 9
    steps = arrays(stream(digits, ids, stop=3 * per_epoch, augment=None))
    epochs = [
        np.concatenate([index for *_, index in steps[k : k + per_epoch]])
        for k in range(0, 3 * per_epoch, per_epoch)
    ]
    for epoch, seen in enumerate(epochs):
        order = np.random.default_rng([3, epoch]).permutation(ids)
        assert np.array_equal(seen, order[: per_epoch * 16])
        assert len(set(seen)) == per_epoch * 16 and set(seen) <= set(ids)
    assert not np.array_equal(epochs[0], epochs[1])


def test_pixels_are_a_function_of_seed_epoch_and_id(digits, ids):
    def views(batch_size, seed=3, epoch=1):
        per_epoch = pipeline.steps_per_epoch(ids, batch_size)
        start, stop = epoch * per_epoch, (epoch + 1) * per_epoch
        seen = {}
        for images, _, index in arrays(
            stream(digits, ids, start, stop, batch_size=batch_size, seed=seed)
        ):
            seen.update(zip(index.tolist(), images, strict=True))
        return seen

    first = views(16)
    for changes, same in (((5,), True), ((16, 4), False), ((16, 3, 2), False)):
        other = views(*changes)
        shared = sorted(set(first) & set(other))
        assert len(shared) > 100
        equal = [np.array_equal(first[key], other[key]) for key in shared]
        assert all(equal) if same else np.mean(equal) < 0.2


@pytest.mark.parametrize(
    ("count", "batch_size"), [(1, 4), (7, 7), (10, 4), (None, 100)]
)
def test_evaluation_sees_each_example_once(digits, count, batch_size):
    ids = np.arange(count)[::-1] if count else None
    count = count or len(digits.test.labels)
    dataset = pipeline.eval_stream(digits.test, ids, batch_size=batch_size)
    assert len(dataset) == -(-count // batch_size)
    seen = []
    for images, targets, weight in dataset:
        index, weight = targets["index"].numpy(), weight.numpy()
        assert images.shape == (batch_size, 8, 8, 1) and weight.dtype == np.float32
        assert np.array_equal(weight, index >= 0)
        rows = np.where(index >= 0, index, 0 if ids is None else ids[0])
        assert np.array_equal(images, digits.test.images[rows])
        assert np.array_equal(targets["label"], digits.test.labels[rows])
        seen.extend(index[weight > 0])
    expected = np.arange(count) if ids is None else ids
    assert np.array_equal(seen, expected)


def test_memory_mapped_images_are_read_in_place(digits, ids, tmp_path):
    np.save(tmp_path / "images.npy", digits.train.images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    split = type(digits.train)(mapped, digits.train.targets)
    got = pipeline.train_stream(
        split, ids, batch_size=16, seed=3, augment=None, start_step=0, num_steps=3
    )
    expected = arrays(stream(digits, ids, stop=3, augment=None))
    for left, right in zip(arrays(got), expected, strict=True):
        assert all(map(np.array_equal, left, right))


def test_mistakes_are_refused(digits, ids):
    message = f"batch_size 500 exceeds the {len(ids)} training examples"
    with pytest.raises(UserError, match=message):
        stream(digits, ids, batch_size=500)
    with pytest.raises(UserError, match="batch_size must be .* >= 1, got 0"):
        stream(digits, ids, batch_size=0)
    with pytest.raises(UserError, match=r"batch_size must be .*, got 2\.5"):
        pipeline.eval_stream(digits.test, batch_size=2.5)
    with pytest.raises(UserError, match="seed must be >= 0, got -1"):
        stream(digits, ids, seed=-1)
    with pytest.raises(UserError, match=r"start_step .* = 20\], got 21"):
        stream(digits, ids, start=21)
    with pytest.raises(UserError, match="positions in a split of .*, got 99999"):
        stream(digits, np.array([0, 99_999]), batch_size=1)
    with pytest.raises(UserError, match="no examples to evaluate"):
        pipeline.eval_stream(digits.test, [], batch_size=4)


TWO_REPLICAS = """
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
parts = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, parts)
from tf_mskd.data import Mixing, eval_stream, load_source, make_augment, train_stream
split = load_source("digits").train
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
def make():
    augment = make_augment("crop,flip")
    return train_stream(split, np.arange(60), batch_size=8, seed=1, augment=augment,
                        start_step=5, num_steps=12)
def make_eval():
    return eval_stream(split, np.arange(11), batch_size=4)
def make_mixed():
    return train_stream(split, np.arange(60), batch_size=8, seed=1, augment=None,
                        start_step=5, num_steps=12,
                        mixing=Mixing(0.4, 1.0, num_classes=10))
for builder in (make, make_eval, make_mixed):
    alone, count = list(builder()), 0
    distributed = strategy.experimental_distribute_dataset(builder())
    for expected, got in zip(alone, distributed, strict=True):
        replicas = tf.nest.map_structure(
            lambda part: np.concatenate(strategy.experimental_local_results(part)), got)
        assert len(strategy.experimental_local_results(got[0])) == 2
        tf.nest.map_structure(np.testing.assert_array_equal, expected, replicas)
        count += 1
    print("equal batches", count)
"""


@pytest.mark.run
def test_two_replicas_see_the_batches_of_one_device():
    run = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS],
        capture_output=True,
        text=True,
        timeout=300,
    )
    expected = [f"equal batches {count}" for count in (7, 3, 7)]
    assert run.stdout.splitlines() == expected, run.stderr
