"""The label loss with smoothed labels."""

import typing

import keras
from keras import ops

from tf_mskd.tasks.softmax import cross_entropy
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.types import Tensor


@keras.saving.register_keras_serializable(package="tf_mskd")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy against labels of which all classes share a part.

    L[b] = (1 - s) * CE(labels[b], logits[b]) - s * mean_n log_softmax(logits)[b, n]

    Args:
        smoothing: float s in [0, 1).

    Call with labels int [B] or float [B, classes], and logits [B, classes].

    Raises:
        UserError: for a value out of range.

    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision",
        CVPR 2016, section 7.

    Example:
        >>> loss = SmoothedCrossEntropy(0.1)
        >>> round(float(loss(np.array([0]), np.array([[2.0, 0.0]]))), 4)
        0.2269
    """

    def __init__(
        self,
        smoothing: float = 0.1,
        name: str = "smoothed_cross_entropy",
        **kwargs: typing.Any,
    ):
        super().__init__(name=name, **kwargs)
        if not 0 <= smoothing < 1:
            raise UserError(f"Label smoothing must be in [0, 1), got {smoothing}.")
        self.smoothing = smoothing

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns float32 [B], in nats."""
        logits = ops.cast(ops.convert_to_tensor(y_pred), "float32")
        shared = -ops.mean(ops.log_softmax(logits, axis=-1), axis=-1)
        kept = 1 - self.smoothing
        return kept * cross_entropy(y_true, logits) + self.smoothing * shared

    def get_config(self) -> dict[str, typing.Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "smoothing": self.smoothing}
