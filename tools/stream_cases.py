"""The input side of photographs in files: ours, tf.data written by hand, and Keras'."""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

import tf_mskd
from tf_mskd.data import pipeline
from tf_mskd.data.augment import make_augment
from tf_mskd.data.sources import load_source
from tf_mskd.training.tensorflow_loop import TensorFlowLoop

SIDE, SCALE, RATIO = 224, (0.08, 1.0), (3 / 4, 4 / 3)
NAMES = ("china", "flower")
OURS, BY_IMAGE, BY_BATCH = "source_crop,flip", "by hand, by image", "by hand, by batch"
WHOLE, WHOLE_BY_HAND = "whole images", "whole images by hand"
KERAS = "image_dataset_from_directory"
COMPARED = {OURS: (BY_IMAGE, BY_BATCH), WHOLE: (WHOLE_BY_HAND, KERAS)}
LISTING = """
import json, pathlib, sys, time
from tf_mskd.data.sources import load_source

def now():
    status = pathlib.Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0])
    return {"seconds": time.time(), "cpu": time.process_time(), "bytes": 1024 * peak}

pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
before = now()
load_source("folder", sys.argv[1], 224, memory="stream")
print(json.dumps({key: value - before[key] for key, value in now().items()}))
"""


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
        WHOLE_BY_HAND: whole_by_hand(folder, batch_size),
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
        return _one_by_one(files, _window, batch_size)

    def read(names):
        return tf.map_fn(_window, names, fn_output_signature=tf.uint8)

    batches = files.batch(batch_size, drop_remainder=True)
    return batches.map(read, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def whole_by_hand(folder, batch_size):
    """The same, of the centre of whole images."""
    files = tf.data.Dataset.list_files(f"{folder}/train/*/*.jpg", seed=0).repeat()
    return _one_by_one(files, _whole, batch_size)


def _one_by_one(files, read, batch_size):
    images = files.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return images.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _whole(name):
    image = tf.io.decode_jpeg(tf.io.read_file(name), channels=3)
    side = tf.reduce_min(tf.shape(image)[:2])
    image = tf.image.resize_with_crop_or_pad(image, side, side)
    image = tf.image.resize(image, (SIDE, SIDE), antialias=True)
    return tf.ensure_shape(tf.cast(tf.round(image), tf.uint8), (SIDE, SIDE, 3))


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


def decode_seconds(folder, repeats):
    """Seconds to decode the files into memory on a number of cores, dict by round."""
    cores, times = os.sched_getaffinity(0), {}
    for _ in range(repeats):
        for used in ({min(cores)}, cores):
            os.sched_setaffinity(0, used)
            start = time.perf_counter()
            load_source("folder", folder, SIDE, memory="decoded")
            times.setdefault(len(used), []).append(time.perf_counter() - start)
    return times


def listing(folder, count):
    """What a start costs with so many files: dict of "seconds", "cpu" and "bytes".

    The bytes are the growth of the peak of resident memory, which needs Linux.
    The files are empty: none is opened before a batch asks for it.
    """
    for split in ("train", "test"):
        for name in range(100):
            place = pathlib.Path(folder, split, f"{name:03}")
            place.mkdir(parents=True)
            for k in range(count // 100 if split == "train" else 1):
                open(place / f"{k:06}.jpg", "wb").close()
    command = [sys.executable, "-c", LISTING, folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def waiting_share(folder, batch_size, steps):
    """Part of the time that training MobileNetV2 on the files waits for images."""
    student = tf_mskd.create_model(
        "mobilenet_v2", 2, input_shape=(SIDE, SIDE, 3), stem="imagenet"
    )
    distiller = tf_mskd.Distiller(student, method="ce")
    distiller.compile(optimizer=tf_mskd.SGD(0.01))
    source = load_source("folder", folder, SIDE, memory="stream")
    augment = {"names": "source_crop,flip", "crop_scale": SCALE}
    loop = TensorFlowLoop(
        distiller,
        tf.distribute.get_strategy(),
        lambda step: ours(source, batch_size, **augment),
    )
    loop.open(0)
    with loop.guarding():
        loop.run(2)
        start = time.perf_counter()
        waited = loop.run(steps).waited
        return waited / (time.perf_counter() - start)
