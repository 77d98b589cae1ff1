"""Multi-label classification: any number of several classes."""

import numpy as np
from keras import ops

from tf_mskd.tasks.base import Task
from tf_mskd.tasks.class_labels import as_labels, text_of_shape
from tf_mskd.tasks.figures import Mean, Scores
from tf_mskd.tasks.sigmoid import (
    agreement,
    bernoulli_kl,
    binary_cross_entropy,
    vote_of_odds,
)
from tf_mskd.utils.errors import UserError


class MultiLabel(Task):
    """An exit gives logits [B, classes]; labels are float [B, classes] in [0, 1].

    The label loss is the binary cross-entropy, imitation the Bernoulli divergence, see
    `sigmoid`. The figure is mAP, the mean over classes of the average precision; each
    step logs the part of the answers, yes or no, that are right ("binary_accuracy").

    Example:
        >>> task = MultiLabel()
        >>> float(task.label_loss([[1.0, 0.0]], [[0.0, 0.0]])[0])  # ln 2
        0.6931471824645996
    """

    name = "multi_label"
    metric = "map"
    step_metric = "binary_accuracy"
    probabilities = "sigmoid"

    def check_outputs(self, name, shape):
        """Any number of logits will do."""

    def label_spec(self, shape):
        """One number for each class."""
        return shape, "float32"

    def read_label(self, label, shape):
        """Rows of 0 and 1, or of numbers between, as float32 [B, classes]."""
        label, found, dtype = as_labels(label, lambda text: self._wrong(text, shape))
        if len(found) != 2 or found[1] != shape[-1]:
            raise self._wrong(f"{dtype} {text_of_shape(found)}", shape)
        return ops.cast(label, "float32")

    def _wrong(self, arrived, shape):
        return UserError(
            f"Labels of the task {self.name!r} must be [B, {shape[-1]}], 0 or 1 for "
            f"each class of the exits, got {arrived}: change the labels, or build the "
            "student with as many classes."
        )

    def check_label(self, label, shape):
        """Refuses what lies outside [0, 1]."""
        wrong = ~((label >= 0) & (label <= 1))  # NaN is wrong as well
        if wrong.any():
            raise UserError(
                f"Labels of the task {self.name!r} must be 0 or 1, or between, got "
                f"{label[wrong].flat[0].item()}: 1 where the class is there, else 0."
            )

    def labels_of(self, labels, num_classes):
        """Class numbers [N] become rows with a single 1."""
        if labels.ndim == 1:
            return np.eye(num_classes, dtype=np.float32)[labels]
        return labels

    def label_loss(self, label, output):
        """See `sigmoid.binary_cross_entropy`."""
        return binary_cross_entropy(label, output)

    def imitation(self, guide, output, temperature):
        """See `sigmoid.bernoulli_kl`."""
        return bernoulli_kl(guide, output, temperature)

    def vote(self, outputs, kind="logits", weights=None):
        """Logits: the mean of the exits', or the log odds of the mean probabilities."""
        return vote_of_odds(outputs, kind, weights)

    def quality(self, label, output):
        """See `sigmoid.agreement`."""
        return agreement(label, output)

    def figures(self):
        """mAP and the part of right answers."""
        return MeanAveragePrecision(Mean(self.step_metric, self.quality))


class MeanAveragePrecision(Scores):
    """Mean over classes of the average precision; keeps the scores of all examples.

    AP = sum_n (R_n - R_(n-1)) P_n over the thresholds, `sklearn`'s definition, which
    interpolates nothing. Classes without a positive example do not count.
    """

    def results(self):
        """Returns {"map": ..., and what is measured beside}."""
        from sklearn.metrics import average_precision_score

        labels, scores = self.kept()
        known = labels.any(0)
        if not known.any():
            raise UserError(
                "Average precision needs examples that have a class, the split has "
                "none: no label in it is 1."
            )
        # one class after another: sklearn reads a single column as two classes
        columns = zip(labels.T[known], scores.T[known], strict=True)
        precisions = [average_precision_score(y, z) for y, z in columns]
        return {"map": float(np.mean(precisions)), **self._beside.results()}
