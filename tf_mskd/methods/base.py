"""The contract of a distillation method."""

import keras


class Method(keras.layers.Layer):
    """Maps named network outputs to named, unweighted loss terms.

    A method is a Keras layer, so its own variables are tracked, saved and trained with
    the student. Its `call` takes three dicts of tensors and returns the terms:

        call(student, teacher, targets) -> {"term/output": float32 [B] or scalar}

    `student` and `teacher` hold network outputs by name ("exit_1": [B, classes], ...),
    `targets` what the data pipeline delivers ("label": int [B], "index": int [B]). A
    term that is a mean over examples stays [B]: the Distiller reduces it with sample
    weights, exactly, on any number of replicas. Terms leave unweighted; the Distiller
    multiplies by the weight of the term and of the exit, and logs them bare. An output
    the running phase does not train is absent from `student`.

    Attributes:
        default_weights: dict, term -> weight used unless the Distiller is told others.
        target_keys: tuple of str, the targets that `call` reads.
        needs_teacher: bool, whether `Distiller` must be given a teacher.
    """

    default_weights = {}
    target_keys = ("label",)
    needs_teacher = True

    def __init__(self, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)  # terms stay float32 in mixed precision

    def teacher_reads(self, student_names, teacher_names):
        """Names the teacher outputs that `call` needs to guide these student outputs.

        Args:
            student_names: list of str, student exits in training, shallow to deep.
            teacher_names: list of str, all exits of the teacher, shallow to deep.

        Returns:
            tuple of str, a subset of `teacher_names`; only these are computed.

        Raises:
            UserError: if the teacher cannot guide these exits.
        """
        return ()

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Creates the method's own variables from dicts, output name -> shape."""

    def call(self, student, teacher, targets):
        """Returns the terms; every method defines its own."""
        raise TypeError(f"{type(self).__name__} defines no call(); see Method.")

    def get_config(self):
        """Returns the constructor's arguments; a method with its own adds them."""
        return super().get_config()
