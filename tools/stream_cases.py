"""The input side of photographs in files: ours, tf.data written by hand, and Keras'."""

import pathlib
import time

import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from tf_mskd.data import pipeline
from tf_mskd.data.augment import make_augment
from tf_mskd.data.sources import load_source

SIDE, SCALE, RATIO = 224, (0.08, 1.0), (3 / 4, 4 / 3)
NAMES = ("china", "flower")
OURS, BY_IMAGE, BY_BATCH = "source_crop,flip", "by hand, by image", "by hand, by batch"
WHOLE, KERAS = "whole images", "image_dataset_from_directory"
COMPARED = {OURS: (BY_IMAGE, BY_BATCH), WHOLE: (KERAS,)}


def write_photographs(folder, count):
    """Parts of two real photographs as JPEG files of some 500 pixels, two classes."""
    random = np.random.default_rng(0)
    for split, number in (("train", count), ("test", 2)):
        for name, image in zip(NAMES, load_sample_images().images, strict=True):
            place = pathlib.Path(folder, split, name)
            place.mkdir(parents=True)
            whole = Image.fromarray(image)
            for k in range(number // 2):
                height, width = random.integers(330, 420), random.integers(450, 560)
                left, top = random.integers(0, 80), random.integers(0, 60)
                box = left, top, left + 480, top + 360
                part = whole.resize((int(width), int(height)), box=box)
                part.save(place / f"{k:04}.jpg", quality=90)


def time_cases(folder, batch_size, repeats, batches=40, before=10):
    """Seconds a batch of every case by round, dict; each reads alone, anew each round.

    An iterator that is kept would fill its buffers while others are timed.
    """
    streams, times = _streams(folder, batch_size), {}
    for _ in range(repeats):
        for name, stream in streams.items():
            iterator = iter(stream)
            for _ in range(before):
                next(iterator)
            start = time.perf_counter()
            for _ in range(batches):
                next(iterator)
            seconds = (time.perf_counter() - start) / batches
            times.setdefault(name, []).append(seconds)
            del iterator
    return times


def _streams(folder, batch_size):
    source = load_source("folder", folder, SIDE, memory="stream")
    return {
        OURS: ours(source, batch_size, "source_crop,flip", crop_scale=SCALE),
        BY_IMAGE: by_hand(folder, batch_size, whole_batch=False),
        BY_BATCH: by_hand(folder, batch_size, whole_batch=True),
        WHOLE: ours(source, batch_size, "none"),
        KERAS: tf.keras.utils.image_dataset_from_directory(
            pathlib.Path(folder, "train"),
            image_size=(SIDE, SIDE),
            batch_size=batch_size,
            crop_to_aspect_ratio=True,
            verbose=False,
        )
        .repeat()
        .prefetch(tf.data.AUTOTUNE),
    }


def ours(source, batch_size, names, **options):
    """The training stream of this library."""
    return pipeline.train_stream(
        source.train,
        np.arange(len(source.train.labels)),
        batch_size=batch_size,
        seed=0,
        augment=make_augment(names, **options),
        start_step=0,
        num_steps=10**9,
    )


def by_hand(folder, batch_size, whole_batch):
    """What a user of tf.data writes: the same windows, resizing and mirroring."""
    files = tf.data.Dataset.list_files(f"{folder}/train/*/*.jpg", seed=0).repeat()
    if not whole_batch:
        images = files.map(_window, num_parallel_calls=tf.data.AUTOTUNE)
        return images.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def read(names):
        return tf.map_fn(_window, names, fn_output_signature=tf.uint8)

    batches = files.batch(batch_size, drop_remainder=True)
    return batches.map(read, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def _window(name):
    content = tf.io.read_file(name)
    shape = tf.cast(tf.io.extract_jpeg_shape(content), tf.float32)
    area = tf.random.uniform([], *SCALE) * shape[0] * shape[1]
    ratio = tf.exp(tf.random.uniform([], *np.log(RATIO)))
    tall = tf.clip_by_value(tf.sqrt(area / ratio), 1.0, shape[0])
    wide = tf.clip_by_value(tf.sqrt(area * ratio), 1.0, shape[1])
    top = tf.random.uniform([]) * (shape[0] - tall)
    left = tf.random.uniform([]) * (shape[1] - wide)
    window = tf.cast(tf.stack([top, left, tall, wide]), tf.int32)
    image = tf.io.decode_and_crop_jpeg(content, window, channels=3)
    image = tf.image.resize(image, (SIDE, SIDE), antialias=True)
    image = tf.image.random_flip_left_right(tf.cast(tf.round(image), tf.uint8))
    return tf.ensure_shape(image, (SIDE, SIDE, 3))
