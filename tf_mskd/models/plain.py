"""A plain Keras model as a network with one exit, and anything callable as a teacher.

Networks with exits pass as they are.
"""

import typing

import keras

from tf_mskd.models import graph
from tf_mskd.models.attach import attach
from tf_mskd.models.probabilities import LOGITS, kind_of_output
from tf_mskd.models.resized import on_resized, size_for_teacher
from tf_mskd.tasks import Task, create_task
from tf_mskd.utils import names
from tf_mskd.utils.errors import UserError


def as_student(model: typing.Any, task: str | Task = "classification") -> keras.Model:
    """Returns the model as a student.

    Args:
        model: functional Keras model or built `Sequential`, with outputs exit_k or with
            one output, logits [B, classes].
        task: what the exits answer, a `Task` or the name of one.

    Returns:
        functional model with a dict of exits: `model` itself if it has them, else one
        that shares its layers and weights and calls the output `exit_1`.

    Raises:
        UserError: if the model is of another kind, has several outputs, or
            probabilities for logits.

    Example:
        >>> net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> list(as_student(net).output)
        ['exit_1']
    """
    network = as_functional(model)
    if network is None:
        raise UserError(
            f"The student must be a functional Keras model, got {_kind(model)}: pass "
            "keras.Model(x, model(x)) with x = keras.Input(shape)."
        )
    return _with_exits(network, "student", create_task(task))


def as_teacher(
    model: typing.Any,
    student: keras.Model | None = None,
    task: str | Task = "classification",
    size: typing.Any = None,
) -> keras.Model:
    """Returns a model, or anything callable, as a teacher.

    Args:
        model: as for `as_student`; or a Keras layer or a function that takes a batch of
            the student's inputs and returns logits [B, classes] or a dict of exits.
            Rows of one output that are probabilities are converted to logits.
        student: functional model, whose inputs a callable gets; None for a model.
        task: what the exits answer, a `Task` or the name of one.
        size: int or (int, int), side or height and width of the images that the teacher
            gets, to which it resizes the student's; None leaves them as they are.

    Returns:
        functional model with a dict of exits.

    Raises:
        UserError: if the outputs are no logits, the call fails, or the size fits
            student or teacher not.
    """
    if size is not None:
        size = size_for_teacher(size, student)
    network = as_functional(model)
    if network is None:
        network = _called(model, student, size)
    network = _with_exits(network, "teacher", create_task(task))
    return network if size is None else on_resized(network, student, size)


def as_functional(model: typing.Any) -> keras.Model | None:
    """Returns a functional model that is the given one, or None where it is of no kind.

    A built `Sequential` becomes a functional model of the same layers.
    """
    if not getattr(model, "outputs", None) or not getattr(model, "inputs", None):
        return None
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model


@keras.saving.register_keras_serializable(package="tf_mskd")
class OutsideNetwork(keras.layers.Layer):
    """A function of a batch as a layer; what it does inside is its own affair.

    Args:
        function: callable of the inputs, returns a tensor or a dict of tensors.
    """

    def __init__(self, function, name=None):
        super().__init__(name=name, autocast=False)
        self._held = lambda: function  # not an attribute: nothing of it is tracked

    def call(self, inputs):
        return self._held()(inputs)


def _called(model, student, size=None):
    """A functional model that calls `model` on inputs such as the student's."""
    if not callable(model):
        raise UserError(
            "The teacher must be a Keras model or a function of a batch, got "
            f"{_kind(model)}: pass one of these."
        )
    inputs = keras.tree.map_structure(lambda t: _input_like(t, size), student.input)
    is_layer = isinstance(model, keras.layers.Layer)
    layer = model if is_layer else OutsideNetwork(model, name="outside_network")
    try:
        outputs = layer(inputs)
    except Exception as error:  # anything a foreign function may raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"The teacher, {_kind(model)}, cannot be called on a batch such as the "
            f"student's, {_shapes(student)}: {reason}. It must take such a batch and "
            "compute with operations of Keras or of the backend."
        ) from error
    return keras.Model(inputs, outputs, name=getattr(model, "name", None) or "teacher")


def _input_like(tensor, size):
    shape = tensor.shape[1:] if size is None else (*size, tensor.shape[-1])
    return keras.Input(shape, dtype=tensor.dtype, name=tensor.name)


def _with_exits(network, role, task):
    tensors = graph.output_tensors(network)
    own = names.numbered(tensors, "exit")
    for name in own:
        _check_output(role, network, name, tensors[name], task)
        kind = kind_of_output(network, tensors[name])
        if kind != "logits" and task.probabilities:
            remedy = "build it without its activation"
            if role == "teacher" and kind == task.probabilities and len(own) == 1:
                remedy += ", or pass a model with this one output, not in a dict"
            raise _no_logits(role, network, name, kind, remedy)
    if not own:
        return _one_exit(network, role, tensors, task)
    if isinstance(network.output, dict):
        return network
    # outputs that are exits by the names of their layers
    return keras.Model(network.input, tensors, name=network.name)


def _one_exit(network, role, tensors, task):
    if len(tensors) != 1:
        raise UserError(
            f"The {role} {network.name!r} has no output named exit_1, exit_2, ... and "
            f"not one output but {len(tensors)} ({', '.join(tensors)}): pass "
            f"keras.Model(m.input, {{'exit_1': logits}}), with the logits among them."
        )
    ((name, tensor),) = tensors.items()
    _check_output(role, network, name, tensor, task)
    kind = kind_of_output(network, tensor)
    if role == "teacher" and kind == task.probabilities:
        layer, how = LOGITS[kind]
        print(
            f"Teacher {network.name!r} gives probabilities ({name}): converted to "
            f"logits by their {how}."
        )
        tensor = layer(dtype="float32", name="logits_of_probabilities")(tensor)
    elif kind != "logits" and task.probabilities:
        remedy = "build it without its last activation"
        raise _no_logits(role, network, name, kind, remedy)
    network = keras.Model(network.input, tensor, name=network.name)
    return attach(network, [], tensor.shape[-1], task)[0]


def _check_output(role, network, name, tensor, task):
    rank = 4 if task.dense else 2
    if len(tensor.shape) != rank or tensor.shape[-1] is None:
        form = "a map [B, h, w, classes]" if task.dense else "logits [B, classes]"
        raise UserError(
            f"Output {name!r} of the {role} {network.name!r} must be {form}, got "
            f"{tuple(tensor.shape)}: give it exits with tf_mskd.add_exits."
        )


def _no_logits(role, network, name, kind, remedy):
    return UserError(
        f"Output {name!r} of the {role} {network.name!r} must be logits, got "
        f"probabilities ({kind}): {remedy}."
    )


def _kind(model):
    return f"a {type(model).__name__}"


def _shapes(model):
    return ", ".join(str(tuple(t.shape)) for t in model.inputs)
