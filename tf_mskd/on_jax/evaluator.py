"""All exits over a split from one forward pass, on one device under JAX."""

import collections
import typing
from collections.abc import Callable, Iterator

import jax
import keras
import numpy as np

from tf_mskd.data.arrays import Split
from tf_mskd.models import exit_names, sub_model
from tf_mskd.tasks.meter import Meter

CALLS_AHEAD = 32  # given to the device before the answer of the first is awaited


class JaxEvaluator:
    """Runs models over images as they are; as `training.evaluation.Evaluator`.

    Args:
        split: `Split`.
        ids: int64 [n], positions in it; None takes all.
        batch_size: int, images in one call.
    """

    def __init__(self, split: Split, ids: np.ndarray | None, batch_size: int):
        self._images, self._labels = split.images, split.labels
        if ids is not None:
            self._images, self._labels = self._images[ids], self._labels[ids]
        self._size = batch_size
        self._functions: dict[int, tuple] = {}

    def logits(self, model: keras.Model) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Returns the logits of every exit and the labels."""
        batches = [outputs for outputs, _ in self._batches(model)]
        names = exit_names(model)
        joined = {n: np.concatenate([b[n] for b in batches]) for n in names}
        return joined, self._labels

    def measure(
        self,
        model: keras.Model,
        meter: Meter,
        teacher: typing.Any = None,
        after_batch: Callable[[], None] = lambda: None,
    ) -> Meter:
        """Adds what the exits answer to a meter; returns the meter."""
        for outputs, labels in self._batches(model):
            meter.update(outputs, labels)
            after_batch()
        return meter

    def _batches(self, model) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        forward, network = self._function(model)
        groups = network.trainable_variables, network.non_trainable_variables
        weights = tuple([v.value for v in group] for group in groups)
        waiting = collections.deque()
        for start in range(0, len(self._labels), self._size):
            images = self._images[start : start + self._size]
            missing = self._size - len(images)
            padded = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
            labels = self._labels[start : start + self._size]
            waiting.append((forward(weights, padded), labels))
            if len(waiting) > CALLS_AHEAD:
                yield _fetch(*waiting.popleft())
        while waiting:
            yield _fetch(*waiting.popleft())

    def _function(self, model):
        if id(model) not in self._functions:
            names = exit_names(model)  # a student without its auxiliary heads
            network = model if list(model.output) == names else sub_model(model, names)

            @jax.jit
            def forward(weights, images):
                outputs, _ = network.stateless_call(*weights, images, training=False)
                return {name: outputs[name].astype("float32") for name in names}

            self._functions[id(model)] = (forward, network, model)  # kept alive
        return self._functions[id(model)][:2]


def _fetch(outputs, labels):
    kept = {name: np.asarray(values)[: len(labels)] for name, values in outputs.items()}
    return kept, labels
