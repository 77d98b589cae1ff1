"""Classification: one class of several."""

from collections.abc import Mapping
from typing import Any

from keras import ops

from tf_mskd.tasks import ensemble
from tf_mskd.tasks.base import Task
from tf_mskd.tasks.class_labels import check_class_labels, read_class_labels
from tf_mskd.tasks.meter import Meter
from tf_mskd.tasks.softmax import correct, cross_entropy, softened_kl
from tf_mskd.utils.errors import UserError


class Classification(Task):
    """An exit gives logits [B, classes]; labels are int [B] or float [B, classes].

    The label loss is the cross-entropy, imitation the divergence KD_T, see `softmax`;
    the figure is top-1 accuracy.

    Example:
        >>> task = Classification()
        >>> float(task.label_loss([0], [[0.0, 0.0]])[0])  # ln 2
        0.6931471824645996
    """

    name = "classification"
    one_class = True

    def check_outputs(self, name, shape):
        """Refuses one logit."""
        if shape[-1] == 1:
            raise UserError(
                f"The exits of {name!r} have one logit, distillation compares "
                "two classes or more: build it with num_classes=2, labels 0 and 1."
            )

    def label_spec(self, shape):
        """Class numbers."""
        return (), "int32"

    def read_label(self, label, shape):
        """See `class_labels.read_class_labels`."""
        return read_class_labels(label, shape[-1])

    def check_label(self, label, shape):
        """See `class_labels.check_class_labels`."""
        check_class_labels(label, shape[-1])

    def labels_of(self, labels, num_classes):
        """Refuses several classes of one example, and label maps."""
        if labels.ndim == 3:
            raise UserError(
                f"Task {self.name!r} has one class an example, the data set has one "
                "for every pixel: take the task 'segmentation'."
            )
        if labels.ndim != 1:
            raise UserError(
                f"Task {self.name!r} has one class an example, the data set has "
                "several: take the task 'multi_label'."
            )
        return labels

    def label_loss(self, label, output):
        """See `softmax.cross_entropy`."""
        return cross_entropy(label, output)

    def imitation(self, guide, output, temperature):
        """See `softmax.softened_kl`."""
        return softened_kl(guide, output, temperature)

    def vote(self, outputs, kind="logits", weights=None):
        """Logits: the mean of the exits' or the logarithm of the mean probabilities."""
        scores = ensemble.ensemble_scores(outputs, kind, weights)
        return ops.log(scores + 1e-12) if kind == "probabilities" else scores

    def quality(self, label, output):
        """See `softmax.correct`."""
        return correct(label, output)

    def fit_weights(self, outputs, labels):
        """See `ensemble.fit_weights`."""
        return ensemble.fit_weights(outputs, labels)


def accuracies(
    outputs: Mapping[str, Any],
    labels: Any,
    weights: Mapping[str, float] | None = None,
    kind: str = "logits",
) -> dict[str, float]:
    """Accuracy of every exit and of the ensembles, from one set of logits.

    Args:
        outputs: dict, exit name -> float array [N, classes] of logits.
        labels: int array [N].
        weights: dict, exit name -> float, from `fit_weights`, or None.
        kind: "logits" or "probabilities", what "ensemble" averages.

    Returns:
        dict of fractions in [0, 1]: each exit by name, "ensemble" (of `kind`), the
        ensemble of the other kind ("ensemble_probabilities" or "ensemble_logits") and,
        with `weights`, "ensemble_fitted".

    Raises:
        UserError: if `kind` is unknown or `outputs` is empty.

    Example:
        >>> z = {"exit_1": [[1.0, 0.0]], "exit_2": [[0.0, 3.0]]}
        >>> accuracies(z, [1])["exit_1"], accuracies(z, [1])["ensemble"]
        (0.0, 1.0)
    """
    meter = Meter(Classification(), kind, weights)
    meter.update(outputs, labels)
    return meter.main()
