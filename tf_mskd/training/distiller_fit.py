"""What `compile`, `fit` and `evaluate` of a Distiller do beside those of Keras."""

import keras

from tf_mskd.training import label_checks
from tf_mskd.training.compiled import exit_metrics, label_loss
from tf_mskd.training.first_look import FirstLook
from tf_mskd.training.optimizers import SGD
from tf_mskd.training.term_schedule import TermSchedule
from tf_mskd.utils.errors import UserError


class DistillerFit(keras.Model):
    """The part of `Distiller` that a user of Keras calls."""

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        metrics=None,
        *,
        weighted_metrics=None,
        loss_weights=None,
        **kwargs,
    ):
        """Configures training; the task's figure is measured without being asked for.

        Args:
            optimizer: Keras optimizer; `tf_mskd.SGD` is the published codes' one.
            loss: the label loss of every exit instead of the task's, in the
                terms "ce/exit_k" and in evaluation; as for `keras.Model.compile`,
                from logits. The terms of the method stay what they are.
            metrics: list, measured at every exit and the ensemble ("exit_2_top5");
                as for `keras.Model.compile`, from logits.
            weighted_metrics: list, likewise; they read the sample weights.
            loss_weights: must stay None: `term_weights` and `exit_weights` weigh.
            **kwargs: as for `keras.Model.compile`.

        Raises:
            UserError: for a loss or a metric that the exits cannot be given to.
        """
        if loss_weights is not None:
            raise UserError(
                "Distiller.compile takes no loss_weights: pass term_weights and "
                "exit_weights to Distiller."
            )
        self._label_loss = label_loss(loss, self.task)
        self.method.set_label_loss(self._label_loss)
        names = [*self.exits, "ensemble"]
        self._measures.further = [
            *exit_metrics(metrics, names, False, self.task),
            *exit_metrics(weighted_metrics, names, True, self.task),
        ]
        super().compile(optimizer=optimizer, **kwargs)
        self._given.compiled = {
            "loss": loss,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        if self.method.trains_teacher and self.method.teacher_rate != 1:
            # mixed_float16 wraps the optimizer into one that scales the loss
            optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
            if not isinstance(optimizer, SGD):
                self.method.fail(
                    "lowers the teacher's rate: use tf_mskd.SGD (--optimizer=sgd)."
                )
            rates = dict.fromkeys(
                map(id, self.teacher.trainable_variables), self.method.teacher_rate
            )
            optimizer.rate_factors = rates

    def export(self, *args, **kwargs) -> None:
        """Exports the student; as `keras.Model.export`, before and after `fit`."""
        self.student.export(*args, **kwargs)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        **kwargs,
    ):
        """Trains as `keras.Model.fit`, with the method's schedule of weights.

        The first time the teacher's accuracy on the first batch is printed, and a
        warning if that is chance level.

        Raises:
            UserError: for labels that are none of the task, and for a teacher that
                turns out to make probabilities.
        """
        if not self.method.is_prepared:
            self.method.fail(
                "is to be prepared before fit: call distiller.method.prepare("
                "distiller.teacher_network.predict(images), {'index': "
                "np.arange(len(images))})."
            )
        callbacks = [*keras.tree.flatten(callbacks or ()), TermSchedule()]
        keep = None
        if self._has_to_look():
            callbacks.append(FirstLook(batch_size, verbose=verbose != 0))
            keep = callbacks[-1].keep
        for callback in callbacks:  # Keras knows the direction of its own metrics alone
            if getattr(callback, "mode", None) == "auto":
                callback.mode = self._measures.mode_of(callback.monitor)
        x = label_checks.checked(x, y, self._check_label, keep)
        held_out = kwargs.get("validation_data")
        if isinstance(held_out, tuple):
            label_checks.checked(*held_out[:2], self._check_label)
        elif held_out is not None:
            checked = label_checks.checked(held_out, None, self._check_label)
            kwargs["validation_data"] = checked
        with label_checks.explained():
            made = super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)
        self._given.looked = True
        return made

    def _check_label(self, label):
        label_checks.check_labels(label, self.task, self.exit_shape)

    def _has_to_look(self):
        """Whether a teacher that is read, and does not learn, is not yet looked at."""
        rests = self.teacher_network is not None and not self.method.trains_teacher
        return rests and not self._given.looked

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """Runs the student alone over a data set; as `keras.Model.evaluate`.

        Raises:
            UserError: for labels that are none of the task.
        """
        if not kwargs.get("_use_cached_eval_dataset"):
            x = label_checks.checked(x, y, self._check_label)
        self._evaluating = True
        try:
            with label_checks.explained():
                return super().evaluate(x, y, *args, **kwargs)
        finally:
            self._evaluating = False

    def train_on_batch(self, x, y=None, *args, **kwargs):
        """Trains one step; as `keras.Model.train_on_batch`.

        Raises:
            UserError: for labels that are no classes of the student.
        """
        label_checks.checked(x, y, self._check_label)
        return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        """Evaluates one batch; as `keras.Model.test_on_batch`.

        Raises:
            UserError: for labels that are no classes of the student.
        """
        label_checks.checked(x, y, self._check_label)
        return super().test_on_batch(x, y, *args, **kwargs)
