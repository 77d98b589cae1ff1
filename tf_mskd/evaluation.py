"""All exits over a data set from one forward pass, on any number of devices."""

import numpy as np
import tensorflow as tf

from tf_mskd import ensemble as ensembles
from tf_mskd.distribution import explaining_lost_workers
from tf_mskd.models import exit_names


class Evaluator:
    """Runs a model over an evaluation stream; every example counts once.

    Args:
        strategy: `tf.distribute.Strategy` under which the models were made.
        stream: `tf.data.Dataset` of (images, targets, weight), padded with weight 0.
    """

    def __init__(self, strategy, stream):
        self.strategy = strategy
        self._batches = strategy.experimental_distribute_dataset(stream)
        self._functions = {}

    def logits(self, model):
        """Returns the logits of every exit and the labels.

        Args:
            model: functional model with a dict of exits; run in inference mode.

        Returns:
            (dict, exit name -> float32 array [N, classes]; int array [N]).

        Raises:
            UserError: if another worker of several has gone.
        """
        forward = self._function(model)
        parts, labels = [], []
        with explaining_lost_workers(self.strategy):
            for batch in self._batches:
                outputs, label, weight = forward(batch)
                kept = weight.numpy() > 0
                labels.append(label.numpy()[kept])
                parts.append({n: v.numpy()[kept] for n, v in outputs.items()})
        names = exit_names(model)
        joined = {name: np.concatenate([p[name] for p in parts]) for name in names}
        return joined, np.concatenate(labels)

    def _function(self, model):
        if id(model) not in self._functions:
            names, strategy = exit_names(model), self.strategy

            def step(batch):
                images, targets, weight = batch
                outputs = model(images, training=False)
                return {n: outputs[n] for n in names}, targets["label"], weight

            @tf.function
            def forward(batch):
                values = strategy.run(step, args=(batch,))
                return tf.nest.map_structure(
                    lambda v: strategy.gather(v, axis=0), values
                )

            self._functions[id(model)] = (forward, model)  # keeps the id alive
        return self._functions[id(model)][0]


def validation_logs(outputs, labels):
    """Names `ensemble.accuracies` for the log, in [0, 1]: "val_exit_1_accuracy", ..."""
    table = ensembles.accuracies(outputs, labels)
    return {f"val_{name}_accuracy": value / 100 for name, value in table.items()}
