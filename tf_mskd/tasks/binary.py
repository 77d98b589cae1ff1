"""Binary classification by one logit: yes or no."""

import numpy as np
from keras import ops

from tf_mskd.tasks.class_labels import as_labels, text_of_shape
from tf_mskd.tasks.figures import Mean, Scores
from tf_mskd.tasks.multi_label import MultiLabel
from tf_mskd.utils.errors import UserError


class Binary(MultiLabel):
    """An exit gives one logit [B, 1], of the answer yes; labels are 0 or 1.

    Losses as in `MultiLabel`: those of two classes with the logits (0, z). The figure
    is accuracy, and beside it the area under the ROC curve ("auc").

    Example:
        >>> task = Binary()
        >>> task.read_label([1, 0], (1,)).numpy().tolist()
        [[1.0], [0.0]]
    """

    name = "binary"
    metric = step_metric = "accuracy"

    def num_outputs(self, num_classes):
        """One logit for the two classes of a data set."""
        if num_classes != 2:
            raise UserError(
                f"Task {self.name!r} tells two classes apart, the data set has "
                f"{num_classes}: take the task 'classification'."
            )
        return 1

    def check_outputs(self, name, shape):
        """Refuses several logits."""
        if shape != (1,):
            raise UserError(
                f"Task {self.name!r} needs exits of one logit, [B, 1], those of "
                f"{name!r} make {text_of_shape((None, *shape))}: build it with "
                "num_classes=2 and task='binary', or take the task 'classification'."
            )

    def read_label(self, label, shape):
        """Labels [B] or [B, 1] as float32 [B, 1]."""
        label, found, dtype = as_labels(label, lambda text: self._wrong(text, shape))
        if len(found) == 2 and found[1] != 1:
            raise self._wrong(f"{dtype} {text_of_shape(found)}", shape)
        return ops.cast(ops.reshape(label, (-1, 1)), "float32")

    def _wrong(self, arrived, shape):
        return UserError(
            f"Labels of the task {self.name!r} must be 0 or 1, [B] or [B, 1], got "
            f"{arrived}: change the labels, or take the task 'classification'."
        )

    def labels_of(self, labels, num_classes):
        """The numbers of the two classes are 0 and 1."""
        self.num_outputs(num_classes)
        return labels

    def figures(self):
        """Accuracy and the area under the ROC curve."""
        return AreaUnderCurve(Mean(self.step_metric, self.quality))


class AreaUnderCurve(Scores):
    """The chance that a positive example scores above a negative one ("auc").

    Keeps the scores of all examples; left out where a class has none.
    """

    def update(self, label, output):
        """Adds a batch."""
        super().update(np.reshape(label, (-1, 1)), output)

    def results(self):
        """Returns {..., "auc": ...}."""
        from sklearn.metrics import roc_auc_score

        labels, scores = self.kept()
        found = self._beside.results()
        if len(np.unique(labels)) == 2:
            found["auc"] = float(roc_auc_score(labels[:, 0], scores[:, 0]))
        return found
