"""The library's own steps for the benchmark: students, teachers live and cached."""

import pathlib

import numpy as np
import tensorflow as tf
from keras import ops

import tf_mskd
from tf_mskd.data import eval_stream, make_augment, sources, train_stream
from tf_mskd.models import sub_model
from tf_mskd.teacher_cache.store import TeacherCache
from tf_mskd.training.evaluation import Predictor
from tools import timing


class OurCases:
    """The library's own steps for one pair, on a stream of augmented images.

    Args:
        teacher, student: dicts of arguments of `create_model`.
        batch: (uint8 [B, H, W, C], int [B] or [B, H, W]).
        folder: where a cache may be kept, or None.
        task: name of the task.
    """

    NAMES = (
        "student, all exits",
        "teacher forward",
        "teacher forward, all exits",
        "mskd, live",
        "mskd, filling the cache",
        "mskd, cached",
        "oto, live",
        "oto, cached",
        "student, one exit",
        "kd, live",
        "kd, cached",
    )

    def __init__(self, teacher, student, batch, folder, task="classification"):
        self._student, self._batch, self._folder = student, batch, folder
        self._size, self._task = len(batch[1]), task
        self._teacher_arguments, self._teachers = teacher, {}
        self._augment = make_augment("crop,flip")
        images, labels = (np.concatenate([part] * 4) for part in batch)
        self._split = sources.Split(images, {"label": labels})
        self._ids = np.arange(len(self._split.labels))

    def _teacher(self, exits="all"):
        """The teacher, made when it is first asked for; its answers are all zero."""
        if exits not in self._teachers:
            teacher = self._create(self._teacher_arguments, exits)
            for name in teacher.output:  # untrained deep networks explode
                for weight in teacher.get_layer(name).weights:
                    weight.assign(ops.zeros_like(weight))
            self._teachers[exits] = teacher
        return self._teachers[exits]

    def _create(self, arguments, exits):
        return tf_mskd.create_model(**arguments, exits=exits, task=self._task)

    def case(self, name):
        """A function of n that does n steps."""
        what, _, how = name.partition(", ")
        if what == "teacher forward":
            teacher = self._teacher()
            last = sub_model(teacher, [list(teacher.output)[-1]])
            return timing.forward_case(teacher if how else last, self._batch)
        method = "ce" if what == "student" else what
        exits = "last" if what == "kd" or how == "one exit" else "all"
        student = self._create(self._student, exits)
        teacher = None if method == "ce" else self._teacher(exits)
        distiller = tf_mskd.Distiller(student, teacher, method, task=self._task)
        if how == "filling the cache":
            return self._filling(distiller.teacher_network)
        rows = (
            self._filled(distiller.teacher_network, what) if how == "cached" else None
        )
        return timing.training_case(distiller, self.stream(rows))

    def stream(self, rows=None):
        """Batches of augmented images, with the teacher's answers if there are rows."""
        return train_stream(
            self._split,
            self._ids,
            batch_size=self._size,
            seed=0,
            augment=self._augment,
            start_step=0,
            num_steps=10**9,
            views=1,
            teacher_rows=rows,
        )

    def _filling(self, network):
        """Runs the teacher over augmented images and writes its answers."""
        write = self._writer(network, "filling")
        return lambda n: write(self._ids[: n * self._size])

    def _filled(self, network, name):
        write = self._writer(network, name)
        write(self._ids)
        return write.cache

    def _writer(self, network, name):
        sizes = {n: t.shape[1] for n, t in network.output.items()}
        cache = TeacherCache(
            pathlib.Path(self._folder) / name,
            {},
            sizes,
            views=1,
            examples=len(self._ids),
        )
        forward = Predictor(tf.distribute.get_strategy())

        def write(ids):
            stream = eval_stream(
                self._split, ids, batch_size=self._size, augment=self._augment
            )
            for outputs, targets in forward.batches(network, stream):
                cache.write(0, targets["index"], outputs)

        write.cache = cache
        return write
