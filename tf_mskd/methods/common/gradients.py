"""Gradients with respect to images, for methods that search in input space."""

import typing

import keras
from keras import ops

from tf_mskd.utils.errors import UserError
from tf_mskd.utils.types import Tensor


def input_gradient(
    function: typing.Callable, images: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of a function of images, row by row, in eager mode, graphs and XLA.

    Args:
        function: images -> (value, extra); value float [B], row b a function of image b
            alone; extra any tensors.
        images: float [B, H, W, C].

    Returns:
        (gradient, value, extra): gradient float32 of the shape of `images`, of value[b]
        with respect to image b; 0 where the value does not depend on it.

    Raises:
        UserError: on another backend than TensorFlow.

    Example:
        >>> gradient, value, _ = input_gradient(lambda x: (x[:, 0] ** 2, ()), [[3, 1]])
        >>> gradient.numpy().tolist(), value.numpy().tolist()
        ([[6.0, 0.0]], [9.0])
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise UserError(
            "A gradient with respect to images needs the TensorFlow backend; "
            f"KERAS_BACKEND is {backend}."
        )
    import tensorflow as tf

    images = ops.cast(ops.convert_to_tensor(images), "float32")
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        value, extra = function(images)
        total = ops.sum(value)
    gradient = tape.gradient(total, images, unconnected_gradients="zero")
    return gradient, value, extra
