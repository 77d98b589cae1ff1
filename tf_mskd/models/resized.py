"""A teacher of images of another size than the student's: they are resized for it."""

import numbers
import typing

import keras
from keras import ops

from tf_mskd.models import graph
from tf_mskd.utils.errors import UserError


@keras.saving.register_keras_serializable(package="tf_mskd")
class ResizeImages(keras.layers.Layer):
    """Images [B, H, W, C] to [B, *size, C], bilinear, sampled at pixel centres.

    Not `keras.layers.Resizing`: see `heads.attend`.

    Args:
        size: (int, int), height and width that come out.
        image_dtype: str, dtype that comes out; numbers are rounded for whole ones.
    """

    def __init__(self, size, image_dtype="float32", **kwargs):
        super().__init__(**{"autocast": False, "dtype": "float32", **kwargs})
        self.size, self.image_dtype = tuple(size), image_dtype

    def call(self, inputs):
        images = ops.cast(inputs, "float32")
        images = ops.image.resize(images, self.size, data_format="channels_last")
        if not keras.backend.is_float_dtype(self.image_dtype):
            images = ops.round(images)
        return ops.cast(images, self.image_dtype)

    def compute_output_spec(self, inputs):
        shape = (inputs.shape[0], *self.size, inputs.shape[-1])
        return keras.KerasTensor(shape, self.image_dtype)

    def get_config(self):
        size = {"size": list(self.size), "image_dtype": self.image_dtype}
        return {**super().get_config(), **size}


def size_for_teacher(size: typing.Any, student: keras.Model) -> tuple[int, int]:
    """Returns the height and width of the images that a teacher of a student gets.

    Args:
        size: int > 0, of square images, or a pair of them.
        student: functional model, which must read one image.

    Raises:
        UserError: for another size, and for a student that reads no image or several
            inputs.

    Example:
        >>> image = keras.Input((8, 8, 3))
        >>> size_for_teacher(16, keras.Model(image, image))
        (16, 16)
    """
    if [len(t.shape) for t in student.inputs] != [4]:
        shapes = ", ".join(str(tuple(t.shape)) for t in student.inputs)
        raise UserError(
            "teacher_size resizes one image input [B, H, W, C], the student reads "
            f"{shapes}: leave teacher_size out."
        )
    pair = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(pair) != 2 or not all(map(_is_size, pair)):
        raise UserError(
            "teacher_size must be a whole number of pixels above 0 or a pair (height, "
            f"width) of them, got {size!r}."
        )
    return int(pair[0]), int(pair[1])


def _is_size(value):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and value > 0


def _take(shapes, size):
    """Whether inputs of these shapes are one image of a size; None takes any."""
    if [len(shape) for shape in shapes] != [4]:
        return False
    height, width = shapes[0][1:3]
    return height in (None, size[0]) and width in (None, size[1])


def on_resized(
    teacher: keras.Model, student: keras.Model, size: tuple[int, int]
) -> keras.Model:
    """Returns a teacher that resizes the student's images itself; a line says so.

    Args:
        teacher: functional model with a dict output.
        student: functional model of one image.
        size: (int, int), height and width of the images that the teacher gets.

    Returns:
        functional model that shares the teacher's layers and reads what the student
        reads; `teacher` itself where that has this size.

    Raises:
        UserError: if the teacher is built for another size, or reads no one image.
    """
    shapes = [tuple(tensor.shape) for tensor in teacher.inputs]
    if not _take(shapes, size):
        reads = ", ".join(map(str, shapes))
        raise UserError(
            f"The teacher {teacher.name!r} does not take images of teacher_size="
            f"{size}, it reads {reads}: pass the size that it was built for."
        )
    (image,) = student.inputs
    if tuple(image.shape[1:3]) == size:
        return teacher
    print(
        f"Teacher {teacher.name!r} gets the images resized to {size[0]}x{size[1]} "
        "(bilinear)."
    )
    (first,) = teacher.inputs
    shape = (*image.shape[1:3], first.shape[-1])
    image = keras.Input(shape, dtype=image.dtype, name=image.name)
    resize = ResizeImages(size, first.dtype, name="resize_for_teacher")
    known = {id(first): resize(image)}
    graph.replay(teacher.outputs, known)
    outputs = {name: known[id(t)] for name, t in teacher.output.items()}
    inputs = keras.tree.pack_sequence_as(student.input, [image])
    return keras.Model(inputs, outputs, name=teacher.name)
