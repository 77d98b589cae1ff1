"""The end of an exit: pooling and a dense layer, or a map that is resized.

The rule of names: exit k makes `embedding_k` [B, D], its pooled vector, and `exit_k`
[B, width], its logits in float32. The layer that makes an output carries its name.
"""

import keras
from keras import ops

from tf_mskd.utils.types import Tensor


def pool(x: Tensor, k: int) -> Tensor:
    """`embedding_k` [B, C]: the mean over the positions of a map or a sequence.

    Args:
        x: [B, H, W, C]; or [B, T, C], positions that its mask leaves out do not count;
            or [B, C], which stays as it is.
        k: int, number of the exit.
    """
    kinds = {
        2: keras.layers.Identity,
        3: keras.layers.GlobalAveragePooling1D,
        4: keras.layers.GlobalAveragePooling2D,
    }
    return kinds[len(x.shape)](name=f"embedding_{k}")(x)


def answer_map(x: Tensor, k: int, width: int, dropout: float, name: str) -> Tensor:
    """float32 [B, h, w, width] from a map [B, h, w, D], by a 1x1 convolution.

    Args:
        x: [B, h, w, D].
        k: int, number of the exit.
        width: int, channels of the answer.
        dropout: float in [0, 1), rate of whole channels before it.
        name: str, of the convolution.
    """
    if dropout:
        x = keras.layers.SpatialDropout2D(dropout, name=f"exit_{k}_dropout")(x)
    return keras.layers.Conv2D(width, 1, dtype="float32", name=name)(x)


def classify(x: Tensor, k: int, width: int, dropout: float = 0.0) -> Tensor:
    """`exit_k`: float32 logits [B, width] from a vector [B, D]."""
    if dropout:
        x = keras.layers.Dropout(dropout, name=f"exit_{k}_dropout")(x)
    return keras.layers.Dense(width, dtype="float32", name=f"exit_{k}")(x)


@keras.saving.register_keras_serializable(package="tf_mskd")
class ResizeMap(keras.layers.Layer):
    """Resizes a map [B, h, w, C] to a height and width, bilinear, half-pixel centres.

    Not `keras.layers.Resizing`: called without `training` it sets its default, True,
    for layers after it too (Keras 3.15).

    Args:
        size: (int, int).
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = tuple(size)

    def call(self, inputs):
        if tuple(inputs.shape[1:3]) == self.size:
            return inputs
        return ops.image.resize(
            inputs, self.size, "bilinear", data_format="channels_last"
        )

    def get_config(self):
        return {**super().get_config(), "size": self.size}
