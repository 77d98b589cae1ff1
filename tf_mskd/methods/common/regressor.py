"""A small network that turns a student's map into the shape of the teacher's."""

import keras
from keras import ops

from tf_mskd.utils.errors import UserError


class Regressor(keras.layers.Layer):
    """Convolution, batch norm and, if wanted, ReLU; the size decides the convolution.

    A student map twice as high and wide as the teacher's: 3x3, stride 2, padded by 1 on
    all sides. Half as high and wide: transposed 4x4, stride 2. Otherwise not smaller:
    "valid" with a kernel of 1 + H - H' times 1 + W - W', so 1x1 for equal sizes.

    Args:
        student_shape: tuple (None, H, W, C).
        teacher_shape: tuple (None, H', W', C').
        relu: bool, whether a ReLU ends it; targets from before a ReLU want none.

    Call with float [B, H, W, C]; returns [B, H', W', C']. The batch norm uses the
    statistics of the batch; on several replicas, of its local part.

    Raises:
        UserError: if the student's map is smaller and not just half the size.

    Source: the regressor ("ConvReg") of the CRD benchmark (Tian, Krishnan, Isola, ICLR
        2020, arXiv 1910.10699) for FitNet and AB.
    Departs from the source: the initial kernels are Keras' (Glorot uniform).

    Example:
        >>> layer = Regressor((None, 8, 8, 16), (None, 4, 4, 32))
        >>> layer.conv.kernel_size, layer.conv.strides
        ((3, 3), (2, 2))
    """

    def __init__(self, student_shape, teacher_shape, relu=True, **kwargs):
        super().__init__(**kwargs)
        self.student_shape = tuple(student_shape)
        self.teacher_shape = tuple(teacher_shape)
        self.relu = relu
        size, goal = self.student_shape[1:3], self.teacher_shape[1:3]
        arguments = {"filters": self.teacher_shape[-1], "dtype": self.dtype_policy}
        self.pad = None
        if size == tuple(2 * n for n in goal):
            # "same" would pad the bottom and the right alone
            self.pad = keras.layers.ZeroPadding2D(1, dtype=self.dtype_policy)
            self.conv = keras.layers.Conv2D(
                kernel_size=3, strides=2, name="conv", **arguments
            )
        elif goal == tuple(2 * n for n in size):
            self.conv = keras.layers.Conv2DTranspose(
                kernel_size=4, strides=2, padding="same", name="conv", **arguments
            )
        elif all(n >= m for n, m in zip(size, goal, strict=True)):
            kernel = tuple(1 + n - m for n, m in zip(size, goal, strict=True))
            self.conv = keras.layers.Conv2D(
                kernel_size=kernel, name="conv", **arguments
            )
        else:
            raise UserError(
                f"{self.name!r} maps no student map of {size[0]}x{size[1]} to a "
                f"teacher map of {goal[0]}x{goal[1]}: the student's may be half the "
                "size, the same or larger. Pair other stages."
            )
        self.norm = keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, name="norm", dtype=self.dtype_policy
        )
        self.build(self.student_shape)

    def build(self, input_shape):
        """Makes the variables."""
        padded = self.pad.compute_output_shape(input_shape) if self.pad else input_shape
        self.conv.build(padded)
        self.norm.build(self.teacher_shape)
        self.built = True

    def call(self, inputs, training=True):
        """Returns [B, H', W', C']."""
        x = self.pad(inputs) if self.pad else inputs
        x = self.norm(self.conv(x), training=training)
        return ops.relu(x) if self.relu else x

    def get_config(self):
        """Returns the constructor's arguments."""
        shapes = {
            "student_shape": self.student_shape,
            "teacher_shape": self.teacher_shape,
        }
        return {**super().get_config(), **shapes, "relu": self.relu}
