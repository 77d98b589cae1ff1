"""What a file holds of a Distiller, and how it is made again from one."""

import os
import typing

import keras

from tf_mskd.methods.common.create import method_config, method_from_config
from tf_mskd.models.plain import as_teacher
from tf_mskd.models.saving import fingerprint, load_model
from tf_mskd.tasks import Task, task_config, task_from_config
from tf_mskd.utils.errors import UserError

TEACHER = "teacher_"  # before the number of a weight of the teacher in a file


def read_teacher(teacher: typing.Any, task: Task) -> tuple[typing.Any, str | None]:
    """Returns the teacher, read if it is given by a path, and that path or None.

    Args:
        teacher: network, None, or str or path as for `saving.load_model`.
        task: `Task`.

    Raises:
        UserError: if there is no such file, or it cannot be read safely.
    """
    if isinstance(teacher, str | os.PathLike):
        return load_model(teacher, task), os.fspath(teacher)
    return teacher, None


class DistillerFiles(keras.Model):
    """The part of `Distiller` that Keras saves and loads it by.

    A file has the whole state of training. Of a teacher that does not learn it has the
    weights with `store_teacher`, else the path, if the teacher was given by one.
    """

    def get_config(self) -> dict[str, typing.Any]:
        """Returns what a file holds of the Distiller beside weights.

        Of a teacher that does not learn this is its architecture, with the layer of a
        `teacher_size`, the fingerprint of its weights, and the path that it was read
        from.

        Raises:
            UserError: for a teacher or a method that a file cannot hold.
        """
        whole = self.method.trains_teacher or self._stores_teacher
        return {
            **self._given.config,
            "student": keras.saving.serialize_keras_object(self.student),
            "teacher": None if self.teacher is None else _serialized(self.teacher),
            "fingerprint": self._given.fingerprint or self._fingerprint(),
            "teacher_path": None if whole else self._given.teacher_path,
            "method": method_config(self.method),
            "task": task_config(self.task),
            "phases": self.phases,
            "phase": self.phase,
            "ensemble": self.ensemble,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the Distiller again; its teacher may wait for its weights.

        It is read again from the path that it was given by. If nothing is there, or
        another network, a line says so.
        """
        config, made = dict(config), keras.saving.deserialize_keras_object
        expected, phase = config.pop("fingerprint"), config.pop("phase")
        path, size = config.pop("teacher_path", None), config.pop("teacher_size", None)
        student = config["student"] = made(config["student"], custom_objects)
        config["task"] = task_from_config(config["task"])
        teacher = None
        if path is not None:
            fits = student, config["task"], size
            teacher = _teacher_at(path, expected, *fits)
        if teacher is None and config["teacher"] is not None:
            teacher = made(config["teacher"], custom_objects)
        config["teacher"] = teacher
        config["method"] = method_from_config(config["method"])
        distiller = cls(**config)
        distiller.expect_teacher(expected, path, size)
        distiller.set_phase(phase)
        return distiller

    def save_own_variables(self, store: typing.Any) -> None:
        """Writes what no part of the Distiller writes; the teacher if it is to be."""
        self._build_optimizer()
        super().save_own_variables(store)
        if self._stores_teacher:
            for number, weight in enumerate(self.teacher.weights):
                store[f"{TEACHER}{number}"] = weight

    def load_own_variables(self, store: typing.Any) -> None:
        """Reads what `save_own_variables` has written."""
        self._build_optimizer()
        names = list(store.keys())
        of_teacher = [name for name in names if name.startswith(TEACHER)]
        own = {name: store[name] for name in names if name not in of_teacher}
        super().load_own_variables(own)
        if self._stores_teacher and of_teacher:
            count = range(len(of_teacher))
            self.teacher.set_weights([store[f"{TEACHER}{k}"][...] for k in count])

    def _build_optimizer(self):
        """Makes the variables that a file holds, before the first step does."""
        if self.compiled:
            self.optimizer.build(self.trainable_variables)

    @property
    def _stores_teacher(self):
        return self._given.config["store_teacher"] and not self.method.trains_teacher

    def expect_teacher(
        self, expected: str | None, path: str | None, size: typing.Any = None
    ) -> None:
        """Refuses `fit` until the teacher's weights have a fingerprint.

        Args:
            expected: str of `saving.fingerprint`, or None.
            path: str, where the teacher was read, or None.
            size: of the images to which the teacher already resizes, or None.
        """
        self._given.fingerprint, self._given.teacher_path = expected, path
        self._given.config["teacher_size"] = size

    def get_compile_config(self) -> dict[str, typing.Any] | None:
        """Returns the arguments of `compile` as a file holds them."""
        config = super().get_compile_config()
        if config is None:
            return None
        compiled = keras.saving.serialize_keras_object(self._given.compiled)
        return {**config, **compiled}

    def compile_from_config(self, config: dict[str, typing.Any]) -> None:
        """Compiles as the saved Distiller was, with the optimizer's variables."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def _fingerprint(self):
        """Of the teacher's weights, where a file does not hold them."""
        if self.teacher is None or self.method.trains_teacher:
            return None
        return fingerprint(self.teacher)

    def make_train_function(self, force: bool = False) -> typing.Any:
        """As Keras' own; refused while the teacher of a file waits for its weights."""
        expected = self._given.fingerprint
        if expected is not None and expected != self._fingerprint():
            raise UserError(
                f"The file of the Distiller has no weights of the teacher "
                f"{self.teacher.name!r}, and it does not have them yet: give it them "
                "before fit, distiller.teacher.set_weights(teacher.get_weights()), or "
                "save with store_teacher=True."
            )
        self._given.fingerprint = None
        return super().make_train_function(force)

    def __dir__(self):
        """Hides from Keras' files what leads to a teacher that is no part of this."""
        hidden = {"teacher", "teacher_network", "learning_parts"}
        return [name for name in super().__dir__() if name not in hidden]


def _serialized(teacher):
    try:
        return keras.saving.serialize_keras_object(teacher)
    except NotImplementedError as error:  # Keras': a layer has no get_config
        raise UserError(
            f"No file can hold the teacher {teacher.name!r}, a function or a layer "
            "without get_config: save distiller.student, or weights alone "
            "(distiller.save_weights, ModelCheckpoint with save_weights_only=True)."
        ) from error


def _teacher_at(path, expected, student, task, size):
    """The teacher in a file, None if it is not there or not the one expected."""
    try:
        teacher = as_teacher(load_model(path, task), student, task, size)
    except UserError as error:
        reason = str(error)
    else:
        if fingerprint(teacher) == expected:
            return teacher
        reason = f"{path!r} holds other weights."
    print(f"The Distiller's teacher is not read, it waits for its weights: {reason}")
    return None
