"""What a file holds of a Distiller, and how it is made again from one."""

import typing

import keras

from tf_mskd.methods.common.create import method_config, method_from_config
from tf_mskd.models.saving import fingerprint
from tf_mskd.utils.errors import UserError


class DistillerFiles(keras.Model):
    """The part of `Distiller` that Keras saves and loads it by.

    A file has the whole state of training, but not the weights of a teacher that does
    not learn.
    """

    def get_config(self) -> dict[str, typing.Any]:
        """Returns what a file holds of the Distiller beside weights.

        Of a teacher that does not learn this is its architecture and the fingerprint of
        its weights: the file has the whole state of training but not those weights. One
        with a `teacher_size` holds the layer that resizes.
        """
        teacher, serialized = self.teacher, keras.saving.serialize_keras_object
        return {
            **self._given.config,
            "student": serialized(self.student),
            "teacher": None if teacher is None else serialized(teacher),
            "fingerprint": self._given.fingerprint or self._fingerprint(),
            "method": method_config(self.method),
            "task": self.task.name,
            "phases": self.phases,
            "phase": self.phase,
            "ensemble": self.ensemble,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the Distiller again; its teacher waits for its weights."""
        config = dict(config)
        expected, phase = config.pop("fingerprint"), config.pop("phase")
        for name in ("student", "teacher"):
            if config[name] is not None:
                made = keras.saving.deserialize_keras_object(
                    config[name], custom_objects
                )
                config[name] = made
        config["method"] = method_from_config(config["method"])
        distiller = cls(**config)
        distiller.expect_teacher(expected)
        distiller.set_phase(phase)
        return distiller

    def expect_teacher(self, expected: str | None) -> None:
        """Refuses `fit` until the teacher's weights have a fingerprint.

        Args:
            expected: str of `saving.fingerprint`, or None.
        """
        self._given.fingerprint = expected

    def get_compile_config(self) -> dict[str, typing.Any] | None:
        """Returns the arguments of `compile` as a file holds them."""
        config = super().get_compile_config()
        if config is None:
            return None
        self.optimizer.build(self.trainable_variables)  # which the file is to hold
        compiled = keras.saving.serialize_keras_object(self._given.compiled)
        return {**config, **compiled}

    def compile_from_config(self, config: dict[str, typing.Any]) -> None:
        """Compiles as the saved Distiller was, with the optimizer's variables."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def _fingerprint(self):
        """Of the teacher's weights, where a file does not hold them."""
        if self.teacher is None or self.method.trains_teacher:
            return None
        return fingerprint(self.teacher)

    def _check_teacher(self):
        if self._given.fingerprint not in (None, self._fingerprint()):
            raise UserError(
                f"The file of the Distiller has no weights of the teacher "
                f"{self.teacher.name!r}, and it does not have them yet: give it them "
                "before fit, distiller.teacher.set_weights(teacher.get_weights())."
            )
        self._given.fingerprint = None

    def __dir__(self):
        """Hides from Keras' files what leads to a teacher that is no part of this."""
        hidden = {"teacher", "teacher_network", "learning_parts"}
        return [name for name in super().__dir__() if name not in hidden]
