"""Semantic hashing: a binary code of each image, to search by."""

import keras
import numpy as np
from keras import ops

from tf_mskd.tasks import heads
from tf_mskd.tasks.base import Task
from tf_mskd.tasks.class_labels import as_labels, text_of_shape
from tf_mskd.tasks.retrieval import Retrieval
from tf_mskd.tasks.sigmoid import bernoulli_kl, vote_of_odds
from tf_mskd.utils.errors import UserError


class Hashing(Task):
    """An exit gives h [B, bits], of which the signs are the code; 1 where h >= 0.

    Codes are learnt without labels: the label loss is 0, labels are class numbers for
    figures alone. Imitation is the Bernoulli divergence of the bits, see `sigmoid`; the
    ensemble is the sign of the mean. The figure is mAP of the k nearest images of the
    training split, see `retrieval`; each step logs how decided the bits are, the mean
    of 2 |sigmoid(h) - 1/2|.

    Args:
        bits: int > 0, length of a code.
        hidden: int >= 0, width of a layer with ReLU before that of the bits; 0: none.
        k: int > 0, images that a search finds.

    Raises:
        UserError: if an argument is out of range.

    Example:
        >>> Hashing(bits=16).num_outputs(10)
        16
    """

    name = "hashing"
    metric = "map_at_k"
    step_metric = "decided_bits"
    probabilities = "sigmoid"
    searches = True

    def __init__(self, bits: int = 64, hidden: int = 0, k: int = 1000):
        for name, value, least in (
            ("bits", bits, 1),
            ("hidden", hidden, 0),
            ("k", k, 1),
        ):
            if not (isinstance(value, int | np.integer) and value >= least):
                raise UserError(
                    f"{name} of the task {self.name!r} must be a whole number >= "
                    f"{least}, got {value!r}."
                )
        self.bits, self.hidden, self.k = bits, hidden, k

    def get_config(self):
        """Returns the constructor's arguments."""
        return {"bits": self.bits, "hidden": self.hidden, "k": self.k}

    def num_outputs(self, num_classes):
        """The bits, of any number of classes."""
        return self.bits

    def check_outputs(self, name, shape):
        """Refuses exits of another length."""
        if shape != (self.bits,):
            raise UserError(
                f"Task {self.name!r} makes codes of {self.bits} bits, the exits of "
                f"{name!r} make {text_of_shape((None, *shape))}: give the task as many "
                f"bits (bits={shape[-1]}), or build the network for {self.bits}."
            )

    def classify(self, x, k, width, dropout=0.0, image_size=()):
        """`exit_k` of a vector, behind a hidden layer if there is one."""
        if self.hidden:
            x = keras.layers.Dense(
                self.hidden, activation="relu", name=f"exit_{k}_hidden"
            )(x)
        return heads.classify(x, k, width, dropout)

    def label_spec(self, shape):
        """Class numbers."""
        return (), "int32"

    def read_label(self, label, shape):
        """Class numbers [B] or [B, 1] as int32 [B]."""
        label, found, dtype = as_labels(label, self._wrong)
        if len(found) == 2 and found[1] != 1:
            raise self._wrong(f"{dtype} {text_of_shape(found)}")
        return ops.cast(ops.reshape(label, (-1,)), "int32")

    def _wrong(self, arrived):
        return UserError(
            f"Labels of the task {self.name!r} must be class numbers [B] or [B, 1], "
            f"which only its figures read, got {arrived}: pass class numbers, or none."
        )

    def check_label(self, label, shape):
        """Refuses what are no whole numbers."""
        wrong = label != np.floor(label)
        if wrong.any():
            raise UserError(
                f"Labels of the task {self.name!r} must be class numbers, got "
                f"{label[wrong].flat[0].item()}."
            )

    def labels_of(self, labels, num_classes):
        """Refuses several labels of one example."""
        if labels.ndim != 1:
            raise UserError(
                f"Task {self.name!r} calls images alike that have one class, the data "
                "set has several labels an image: take a data set of one class each."
            )
        return labels

    def label_loss(self, label, output):
        """0: codes are learnt without labels."""
        return ops.zeros_like(ops.cast(output, "float32")[:, 0])

    def imitation(self, guide, output, temperature):
        """See `sigmoid.bernoulli_kl`."""
        return bernoulli_kl(guide, output, temperature)

    def vote(self, outputs, kind="logits", weights=None):
        """See `sigmoid.vote_of_odds`."""
        return vote_of_odds(outputs, kind, weights)

    def quality(self, label, output):
        """How decided the bits are, 2 |sigmoid(h) - 1/2| in the mean, in [0, 1)."""
        p = ops.sigmoid(ops.cast(ops.convert_to_tensor(output), "float32"))
        return ops.mean(ops.abs(2 * p - 1), axis=-1)

    def figures(self):
        """See `retrieval.Retrieval`."""
        return Retrieval(self.k)


def pack_codes(outputs: np.ndarray) -> np.ndarray:
    """Packs codes into bytes, as search libraries read them.

    Args:
        outputs: float [N, bits], of an exit or an ensemble.

    Returns:
        uint8 [N, ceil(bits / 8)], the first bit highest, as `numpy.packbits`; missing
        bits of the last byte are 0.

    Example:
        >>> pack_codes(np.array([[1.0, -1.0, 0.0]])).tolist()  # 101, and five zeros
        [[160]]
    """
    return np.packbits(np.asarray(outputs) >= 0, axis=1)
