"""All exits over a data set from one forward pass, on any number of devices."""

import typing
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from tf_mskd.models import exit_names, sub_model
from tf_mskd.tasks.meter import Meter
from tf_mskd.training.strategies import explaining_errors, spread


class Predictor:
    """Runs models over streams in inference mode, one compiled program each.

    Args:
        strategy: `tf.distribute.Strategy` under which the models were made.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self._functions: dict[int, tuple] = {}

    def batches(
        self, model: keras.Model, stream: typing.Any
    ) -> Iterator[tuple[dict, dict]]:
        """Yields the outputs of a model for each batch, without the padding.

        Args:
            model: functional model with a dict of outputs.
            stream: `tf.data.Dataset` of (images, targets, weight), padded with weight
                0, or what a strategy has distributed of it.

        Yields:
            (dict, output name -> array [n, ...]; dict, target -> array [n]).

        Raises:
            UserError: if another worker of several has stopped.
        """
        forward = self._function(model)
        if isinstance(stream, tf.data.Dataset):
            stream = spread(self._strategy, stream)
        with explaining_errors(self._strategy):
            for batch in stream:
                outputs, targets, weight = forward(batch)
                kept = weight.numpy() > 0
                yield tf.nest.map_structure(
                    lambda v, kept=kept: v.numpy()[kept], (outputs, targets)
                )

    def _function(self, model):
        if id(model) not in self._functions:
            strategy = self._strategy

            def step(batch):
                images, targets, weight = batch
                return model(images, training=False), targets, weight

            @tf.function
            def forward(batch):
                values = strategy.run(step, args=(batch,))
                return tf.nest.map_structure(
                    lambda v: strategy.gather(v, axis=0), values
                )

            # The model is kept too: if it were collected, a new one could get its id
            # and then the function that was traced for the old one.
            self._functions[id(model)] = (forward, model)
        return self._functions[id(model)][0]


class Evaluator:
    """Runs a model over an evaluation stream; every example counts once.

    Args:
        strategy: `tf.distribute.Strategy` under which the models were made.
        stream: `tf.data.Dataset` of (images, targets, weight), padded with weight 0.
        gallery: the same of the images that a task searches, or None.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        stream: tf.data.Dataset,
        gallery: tf.data.Dataset | None = None,
    ):
        self._batches = spread(strategy, stream)
        self._gallery = None if gallery is None else spread(strategy, gallery)
        self._predictor = Predictor(strategy)
        self._networks: dict[int, tuple] = {}

    def logits(self, model: keras.Model) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Returns the logits of every exit and the labels.

        Args:
            model: functional model with a dict of exits; run in inference mode.

        Returns:
            (dict, exit name -> float32 array [N, classes]; int array [N]).

        Raises:
            UserError: if another worker of several has stopped.
        """
        batches = list(self.batches(model))
        joined = {
            name: np.concatenate([exits[name] for exits, _ in batches])
            for name in exit_names(model)
        }
        return joined, np.concatenate([targets["label"] for _, targets in batches])

    def measure(
        self,
        model: keras.Model,
        meter: Meter,
        teacher: keras.Model | None = None,
        after_batch: Callable[[], None] = lambda: None,
    ) -> Meter:
        """Adds what the exits answer to a meter, batch by batch; returns the meter.

        Args:
            model: see `logits`.
            meter: `Meter`.
            teacher: model whose answers about the gallery are searched too, or None.
            after_batch: function without arguments, called after each batch.

        Raises:
            UserError: if another worker of several has stopped.
        """
        for exits, targets in self.batches(model):
            meter.update(exits, targets["label"], targets.get("picture"))
            after_batch()
        if self._gallery is None:
            return meter
        for exits, targets in self._exits(model, self._gallery):
            meter.add_gallery(exits, targets["label"])
            after_batch()
        if teacher is not None:
            for exits, _ in self._exits(teacher, self._gallery):
                meter.add_teacher_gallery(exits)
                after_batch()
        return meter

    def batches(self, model: keras.Model) -> Iterator[tuple[dict, dict]]:
        """Yields (outputs of the exits, targets) of each batch, see `Predictor`."""
        return self._exits(model, self._batches)

    def _exits(self, model, stream):
        names = exit_names(model)
        if id(model) not in self._networks:  # a student without its auxiliary heads
            bare = model if list(model.output) == names else sub_model(model, names)
            self._networks[id(model)] = (bare, model)  # kept as in `Predictor`
        network = self._networks[id(model)][0]
        for outputs, targets in self._predictor.batches(network, stream):
            yield {name: outputs[name] for name in names}, targets
