"""Figures of a label map, all from one confusion matrix over the data set."""

import numpy as np
from keras import ops

from tf_mskd.tasks.figures import Figures
from tf_mskd.tasks.label_maps import VOID, at_labels


class Confusion(Figures):
    """mIoU, mean class accuracy, pixel accuracy, and the IoU of each class.

    With N[i, j] the pixels of class i that were told to be j, over the whole split,
    void left out: IoU_i = N_ii / (row_i + column_i - N_ii), over classes that occur or
    are told; acc_i = N_ii / row_i, over classes that occur; pixel accuracy is the trace
    over the sum. Outputs are resized to the labels, one image after another.
    """

    def __init__(self):
        self.matrix = None  # int64 [classes, classes]

    def update(self, label, output):
        """Adds the pixels of a batch."""
        classes = output.shape[-1]
        if self.matrix is None:
            self.matrix = np.zeros((classes, classes), np.int64)
        for truth, logits in zip(label, output, strict=True):
            told = np.asarray(ops.argmax(at_labels(logits[None], truth[None]), -1))[0]
            valid = truth != VOID
            pairs = classes * truth[valid].astype(np.int64) + told[valid]
            counts = np.bincount(pairs, minlength=classes**2)
            self.matrix += counts.reshape(classes, classes)

    def results(self):
        """Returns {"miou", "macc", "pixel_accuracy", "iou_0", ...}."""
        right = np.diag(self.matrix)
        rows, columns = self.matrix.sum(1), self.matrix.sum(0)
        with np.errstate(invalid="ignore"):  # 0 / 0 of classes that do not occur
            iou, accuracy = right / (rows + columns - right), right / rows
        found = {
            "miou": np.nanmean(iou),
            "macc": np.nanmean(accuracy),
            "pixel_accuracy": right.sum() / self.matrix.sum(),
        }
        found |= {f"iou_{k}": value for k, value in enumerate(iou)}
        return {name: float(v) for name, v in found.items() if not np.isnan(v)}
