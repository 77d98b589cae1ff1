"""The steps of a `Distiller` on the TensorFlow backend; others use Keras' own."""

import keras
import tensorflow as tf
from keras import ops

from tf_mskd.methods.common.rows import first_rows
from tf_mskd.utils.replicas import all_reduce_sum, num_replicas
from tf_mskd.utils.targets import as_targets, as_weight


class TensorFlowSteps:
    """The training and evaluation step of a `Distiller`, as a mixin.

    Unlike Keras' own steps they run the teacher outside of the gradient tape, train the
    variables of the running phase alone and are exact over any number of replicas.
    """

    def train_step(self, data):
        """Runs teacher and student once and updates the weights once."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        sample_weight = as_weight(sample_weight)
        images, targets = self.augment(x, as_targets(y))
        teacher = None
        if not self.method.trains_teacher:  # before the tape: nothing is recorded
            teacher = self.teacher_targets(images, targets)
            # TensorFlow runs what is ready, so both networks at once, and memory would
            # hold the feature maps of both; the student waits for the teacher's outputs
            with tf.control_dependencies(keras.tree.flatten(teacher)):
                images = tf.identity(images)
        variables = self.trained_variables
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
        if not self.optimizer.built:  # for all phases, not for this one's variables
            self.optimizer.build(self.trainable_variables)
        # what no term reaches stays as it is, without L2
        pairs = zip(gradients, variables, strict=True)
        reached = [pair for pair in pairs if pair[0] is not None]
        self.optimizer.apply(*zip(*reached, strict=True))
        self._track_loss(loss, x, sample_weight)
        rows = self.method.rows_per_image
        exits = first_rows({name: outputs[name] for name in self.trained_exits}, rows)
        label = first_rows({"label": targets["label"]}, rows)["label"]
        self._measures.update_accuracies(exits, label, sample_weight)
        return self.training_logs()

    def test_step(self, data):
        """Runs the student alone, all exits, and changes no weights."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        label, sample_weight = as_targets(y)["label"], as_weight(sample_weight)
        outputs = self(x, training=False)
        loss = self.compute_loss(x, y, outputs, sample_weight, training=False)
        self._track_loss(loss, x, sample_weight)
        self._measures.update_accuracies(outputs, label, sample_weight)
        return self.evaluation_logs()

    def _track_loss(self, loss, x, sample_weight):
        rows = ops.cast(ops.shape(x)[0], "float32")
        rows = rows if sample_weight is None else ops.sum(sample_weight)
        # sum over replicas of loss * N * (W / N) / W is the global loss, exactly
        replicas = num_replicas()
        weight = all_reduce_sum(rows) / replicas
        self._loss_tracker.update_state(loss * replicas, sample_weight=weight)
