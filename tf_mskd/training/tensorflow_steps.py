"""The steps of a `Distiller` on the TensorFlow backend; others use Keras' own."""

import keras
import tensorflow as tf
from keras import ops

from tf_mskd.methods.common.rows import first_rows
from tf_mskd.training.batch import num_rows, read_weight
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.replicas import all_reduce_sum, num_replicas


class TensorFlowSteps:
    """The training and evaluation step of a `Distiller`, as a mixin.

    Unlike Keras' own steps they run the teacher outside of the gradient tape, train the
    variables of the running phase alone and are exact over any number of replicas.
    """

    def train_step(self, data):
        """Runs teacher and student once and updates the weights once."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        sample_weight = read_weight(sample_weight, x)
        targets = self.read_targets(y)
        if not self.optimizer.built:  # for all phases, not for this one's variables
            self.optimizer.build(self.trainable_variables)
        if sample_weight is None or num_replicas() > 1:  # which take each step together
            self._update(x, targets, sample_weight)
        else:
            tf.cond(
                tf.reduce_any(sample_weight != 0),
                lambda: self._update(x, targets, sample_weight),
                lambda: self._skip(x),
            )
        return self.training_logs()

    def _skip(self, x):
        """Counts a batch whose weights are all 0, and changes nothing else."""
        self._track_loss(ops.zeros(()), x)
        return tf.constant(0)

    def _update(self, x, targets, sample_weight):
        images, targets = self.augment(x, targets)
        teacher = None
        if not self.method.trains_teacher:  # before the tape: nothing is recorded
            teacher = self.teacher_targets(images, targets)
            # TensorFlow runs what is ready, so both networks at once, and memory would
            # hold the feature maps of both; the student waits for the teacher's outputs
            with tf.control_dependencies(keras.tree.flatten(teacher)):
                images = keras.tree.map_structure(tf.identity, images)
        variables = self.trained_variables
        if not variables:
            raise UserError(
                f"The student {self.student.name!r} has nothing to train: all its "
                "layers are frozen, set student.trainable = True."
            )
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([v.value for v in variables])
            if teacher is None:
                teacher = self.teacher_targets(images, targets, training=True)
            outputs = self(images, training=True)
            loss = self.compute_loss(
                images, targets, outputs, sample_weight, True, teacher
            )
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        # what no term reaches stays as it is, without L2
        pairs = zip(gradients, variables, strict=True)
        reached = [pair for pair in pairs if pair[0] is not None]
        self.optimizer.apply(*zip(*reached, strict=True))
        self._track_loss(loss, x)
        rows = self.method.rows_per_image
        exits = first_rows({name: outputs[name] for name in self.trained_exits}, rows)
        label = {n: targets[n] for n in ("label",) if n in targets}
        self.update_qualities(exits, first_rows(label, rows), sample_weight)
        return tf.constant(0)  # of `tf.cond`

    def test_step(self, data):
        """Runs the student alone, all exits, and changes no weights."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        targets, sample_weight = self.read_targets(y), read_weight(sample_weight, x)
        outputs = self(x, training=False)
        loss = self.compute_loss(x, targets, outputs, sample_weight, training=False)
        self._track_loss(loss, x)
        self.update_qualities(outputs, targets, sample_weight)
        return self.evaluation_logs()

    def _track_loss(self, loss, x):
        rows = ops.cast(num_rows(x), "float32")
        # sum over replicas of loss * N * (B / N) / B is the global loss, exactly
        replicas = num_replicas()
        weight = all_reduce_sum(rows) / replicas
        self._loss_tracker.update_state(loss * replicas, sample_weight=weight)
