"""Distiller: trains a multi-exit student under a teacher, as any Keras model."""

import keras
from keras import ops

from tf_mskd.methods.common.create import create_method
from tf_mskd.methods.common.losses import correct, cross_entropy
from tf_mskd.methods.common.method import Method
from tf_mskd.models import ensemble as ensembles
from tf_mskd.models.graph import available_outputs, exit_names
from tf_mskd.training.optimizers import SGD
from tf_mskd.training.phase_networks import PhaseNetworks
from tf_mskd.training.term_schedule import TermSchedule
from tf_mskd.utils.choices import ENSEMBLES, PHASES
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.replicas import all_reduce_sum, num_replicas, replica_mean


class Distiller(keras.Model):
    """A student in training: `compile`, `fit`, `evaluate` and callbacks as usual.

    L = sum over terms m and exits k of v_m * w_k * mean_b term_{m,k}[b]

    Each step runs the teacher once, outside the gradient tape and in inference mode,
    and the student once. The teacher is the same, bit for bit, after any training,
    except with methods whose teacher learns too.

    Args:
        student: functional Keras model whose output is a dict of exits, "exit_k" ->
            logits [B, classes]; `create_model` and `add_exits` make such models.
        teacher: a model of the same kind, or None for methods that need none. Its
            `trainable` is set to False, unless the method trains it.
        method: `Method` or the name of one ("mskd"), or of several ("oto,crd").
        phases: "joint" trains all exits at once. "progressive" trains exits 1..p in
            phase p and computes nothing deeper; the callback `ExitPhases` advances it.
            "detached" stops gradients between stages, so that each stage learns from
            its own exit alone.
        term_weights: dict, term -> float >= 0, instead of the method's defaults v_m.
        exit_weights: dict, exit name -> float >= 0; exits not named keep w_k = 1.
        ensemble: how the exits vote in the metrics, "logits" or "probabilities".

    Call with images [B, H, W, C], raw values 0 to 255; returns the dict of exits.
    `fit` takes (images, labels), (images, {"label": ..., ...}) or either with sample
    weights, labels int [B]. Where the targets hold "teacher", a dict of the outputs
    that `teacher_network` would give, the teacher is not run. Logged are "loss", every
    bare term ("kd/exit_1"), the accuracy of every exit ("exit_1_accuracy") and of the
    vote ("ensemble_accuracy"), in [0, 1]. `evaluate` runs the student alone; its "loss"
    is the cross-entropy of the vote.

    Raises:
        UserError: if the parts do not fit together; says which and what to do.

    Source: Xu et al., "Multiple-Stage Knowledge Distillation", Applied Sciences
        12(19):9453 (2022), Algorithm 1. "joint" is Algorithm 1 as printed;
        "progressive" is a reconstruction of its "phased recursive training".

    Example:
        >>> student = tf_mskd.create_model("resnet10", 10, exits="all", width=0.125)
        >>> distiller = tf_mskd.Distiller(student, method="ce")
        >>> distiller.compile(tf_mskd.SGD(0.05, l2=5e-4))
        >>> history = distiller.fit(images, labels, epochs=2)  # doctest: +SKIP
    """

    def __init__(
        self,
        student,
        teacher=None,
        method="mskd",
        *,
        phases="joint",
        term_weights=None,
        exit_weights=None,
        ensemble="logits",
        **kwargs,
    ):
        # raw images reach the networks as they are, also in mixed precision
        super().__init__(autocast=False, **kwargs)
        if phases not in PHASES:
            raise unknown_name("phases", phases, PHASES)
        if ensemble not in ENSEMBLES:
            raise unknown_name("ensemble", ensemble, ENSEMBLES)
        self.method = create_method(method) if _is_name(method) else method
        _check_parts(student, teacher, self.method)
        self.student, self.teacher = student, teacher
        self.phases, self.ensemble = phases, ensemble
        self.exits = exit_names(student)
        if teacher is not None:
            teacher.trainable = self.method.trains_teacher
        _check_backend(self.method)
        self._networks = PhaseNetworks(student, teacher, self.method, phases)
        self._build_method()
        self._create_weights(term_weights or {}, exit_weights or {})
        self._create_metrics()
        self._evaluating = False
        self.built = True
        self.set_phase(1 if phases == "progressive" else len(self.exits))

    # ---- construction

    def _build_method(self):
        """Runs the method on symbols: builds it, and tells the names of its terms."""
        names = self._networks.student_reads(self.exits)
        student = _symbols(self.student, names)
        reads = self._networks.teacher_reads(self.exits)
        teacher = _symbols(self.teacher, reads) if reads else {}
        targets = {name: self._target(name) for name in self.method.target_keys}
        self.term_names = tuple(self.method(student, teacher, targets))

    def _target(self, key):
        """A symbol for one of the targets that `Method.target_keys` may name."""
        if key in ("other_image", "second_view"):
            return keras.KerasTensor((None, *self.student.input_shape[1:]), "uint8")
        if key == "negatives":
            return keras.KerasTensor((None, self.method.num_negatives), "int32")
        return keras.KerasTensor((None,), "int32")

    def _create_weights(self, term_weights, exit_weights):
        terms = dict.fromkeys(name.split("/")[0] for name in self.term_names)
        defaults = {n: self.method.default_weights.get(n, 1.0) for n in terms}
        self.term_weights = self._weight_variables("term", defaults, term_weights)
        self._constant_weights = {**defaults, **term_weights}
        defaults = dict.fromkeys(self.exits, 1.0)
        self.exit_weights = self._weight_variables("exit", defaults, exit_weights)

    def _weight_variables(self, kind, defaults, given):
        for name, value in given.items():
            if name not in defaults:
                raise unknown_name(f"{kind} in {kind}_weights", name, defaults)
            if not value >= 0:
                raise UserError(f"{kind}_weights[{name!r}] must be >= 0, got {value}.")
        return {
            name: self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(given.get(name, default)),
                trainable=False,
                name=f"{kind}_weight_{name}",
            )
            for name, default in defaults.items()
        }

    def _create_metrics(self):
        mean = keras.metrics.Mean
        self.term_metrics = {n: mean(name=n) for n in self.term_names}
        names = [*self.exits, "ensemble"]
        self.accuracy_metrics = {n: mean(name=f"{n}_accuracy") for n in names}

    # ---- phases

    def set_phase(self, phase):
        """Trains exits 1..phase from the next step on (progressive training).

        Args:
            phase: int in [1, number of exits].
        """
        if not 1 <= phase <= len(self.exits):
            raise UserError(f"phase must be 1..{len(self.exits)}, got {phase}.")
        changed = phase != getattr(self, "phase", phase)
        self.phase = phase
        if changed and self.train_function is not None:
            self.make_train_function(force=True)

    def set_term_factors(self, factors):
        """Multiplies the terms' weights from the next step on; see `Method.schedule`.

        Args:
            factors: dict, term -> float; terms not named get their constant weight.
        """
        for name, variable in self.term_weights.items():
            variable.assign(self._constant_weights[name] * factors.get(name, 1.0))

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
        """Trains as `keras.Model.fit`, with the method's schedule of weights."""
        callbacks = [*keras.tree.flatten(callbacks or ()), TermSchedule()]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)

    @property
    def trained_exits(self):
        """The names of the exits that the running phase trains, shallow to deep."""
        return self.exits[: self.phase]

    def evaluation_network(self):
        """Returns the student cut after the deepest exit that the phase trains."""
        return self._networks.evaluation(self.trained_exits)

    # ---- the model and its objective, for every Keras backend

    def call(self, images, training=None):
        """Returns the student's outputs; in training, those of the running phase."""
        network = self.student
        if training:
            network = self._networks.student(self.trained_exits)
        return network(images, training=training)

    def teacher_outputs(self, images, training=False):
        """Returns the teacher outputs that the running phase reads; {} without one."""
        network = self._networks.teacher(self.trained_exits)
        return {} if network is None else network(images, training=training)

    @property
    def teacher_network(self):
        """The teacher cut to all that training reads of it, or None."""
        return self._networks.teacher(self.exits)

    def _guidance(self, images, targets, training=False):
        """What guides the batch: given with the targets, or asked of the teacher."""
        if "teacher" not in targets:
            return self.teacher_outputs(images, training)
        reads = self._networks.teacher_reads(self.trained_exits)
        return {name: ops.cast(targets["teacher"][name], "float32") for name in reads}

    def augment(self, images, targets):
        """Returns the batch as the method changes it; see `Method.augment`."""
        for key in self.method.target_keys:
            if key not in targets:
                self.method.fail(
                    f"reads targets[{key!r}], the data deliver {', '.join(targets)}: "
                    "give targets as a dict with that key."
                )
        teacher = None if self.teacher is None else self.teacher_outputs
        return self.method.augment(images, targets, self.call, teacher)

    def compute_loss(
        self,
        x=None,
        y=None,
        y_pred=None,
        sample_weight=None,
        training=True,
        teacher=None,
    ):
        """Returns the scalar to minimise and updates the metrics of the terms.

        Args:
            x: float [B, H, W, C], raw images, as `augment` has changed them.
            y: int [B] labels, or a dict of targets with "label"; likewise.
            y_pred: dict of student outputs.
            sample_weight: float [B] or None.
            training: bool; False gives the cross-entropy of the vote.
            teacher: dict of teacher outputs, or None to run the teacher here.

        Returns:
            float32 scalar; the sum over replicas is the mean over the global batch.
        """
        targets = _as_dict(y)
        exits = {name: y_pred[name] for name in self.exits if name in y_pred}
        views = self.method.rows_per_image if training else 1
        first = {name: logits[::views] for name, logits in exits.items()}
        self._update_accuracies(first, targets["label"][::views], sample_weight)
        if not training:
            scores = ensembles.ensemble_scores(exits, self.ensemble)
            if self.ensemble == "probabilities":
                scores = ops.log(scores + 1e-12)
            loss = cross_entropy(targets["label"], scores)
            return replica_mean(loss, sample_weight)
        if teacher is None:
            teacher = self._guidance(x, targets)
        terms = self.method(y_pred, teacher, targets)
        if not terms:
            exits = ", ".join(self.trained_exits)
            self.method.fail(
                f"has no term that phase {self.phase} ({exits}) computes: "
                "use phases='joint'."
            )
        if views > 1:  # rows of one image follow each other: [B * views] to [B]
            rows = ops.shape(targets["label"])[0] // views
            terms = {name: _mean_of_views(v, rows) for name, v in terms.items()}
        return self._weighted_sum(terms, sample_weight)

    def _weighted_sum(self, terms, sample_weight):
        total = 0.0
        for name, value in terms.items():
            term, _, output = name.partition("/")
            weight = self.term_weights[term]
            if output in self.exit_weights:
                weight = weight * self.exit_weights[output]
            if len(value.shape):
                mean = replica_mean(value, sample_weight)
                self.term_metrics[name].update_state(value, sample_weight)
            else:
                mean = value / num_replicas()
                self.term_metrics[name].update_state(value)
            total += weight * mean
        return total

    def _update_accuracies(self, exits, label, sample_weight):
        scores = {**exits, "ensemble": ensembles.ensemble_scores(exits, self.ensemble)}
        for name, value in scores.items():
            hits = correct(label, value)
            self.accuracy_metrics[name].update_state(hits, sample_weight)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Returns the metrics; `compute_loss` has updated them already."""
        return self.get_metrics_result()

    def evaluate(self, *args, **kwargs):
        """Runs the student alone over a data set; as `keras.Model.evaluate`."""
        self._evaluating = True
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._evaluating = False

    def get_metrics_result(self):
        """Returns the logs of training or, within `evaluate`, of evaluation.

        Keras takes these, exact over all replicas, for the logs of an epoch if the
        names are those of the last step's logs, which are means of replicas' means.
        """
        return self._logs(self.exits, ()) if self._evaluating else self.training_logs()

    def compile(self, optimizer="rmsprop", loss=None, metrics=None, **kwargs):
        """Configures training; the method is the loss, the exits are the metrics.

        Args:
            optimizer: Keras optimizer; `tf_mskd.SGD` is the published codes' one.
            loss: must stay None: the method given to the constructor is the loss.
            metrics: must stay None: every exit and the ensemble are measured.
            **kwargs: as for `keras.Model.compile`.
        """
        if loss is not None or metrics is not None:
            raise UserError(
                "Distiller.compile takes no loss and no metrics: the method is the "
                "loss, every exit and the ensemble are measured. Drop these arguments."
            )
        super().compile(optimizer=optimizer, **kwargs)
        if self.method.trains_teacher and self.method.teacher_rate != 1:
            # mixed_float16 wraps the optimizer into one that scales the loss
            optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
            if not isinstance(optimizer, SGD):
                self.method.fail("slows the teacher's learning down: use tf_mskd.SGD.")
            rate = self.method.teacher_rate
            variables = self.teacher.trainable_variables
            optimizer.rate_factors = {id(v): rate for v in variables}

    def training_logs(self):
        """Returns what the running phase has measured since the metrics were reset."""
        exits = self.trained_exits
        reads = self._networks.student_reads
        hidden = set(reads(self.exits)) - set(reads(exits))
        terms = [n for n in self.term_names if n.partition("/")[2] not in hidden]
        return self._logs(exits, terms)

    def _logs(self, exits, terms):
        metrics = {"loss": self._loss_tracker}
        metrics.update((n, self.term_metrics[n]) for n in terms)
        for name in (*exits, "ensemble"):
            metrics[f"{name}_accuracy"] = self.accuracy_metrics[name]
        return {name: metric.result() for name, metric in metrics.items()}

    @property
    def learning_parts(self):
        """What training moves: student, method, and a teacher that learns."""
        teacher = [self.teacher] if self.method.trains_teacher else []
        return [self.student, self.method, *teacher]

    @property
    def state_variables(self):
        """All variables that training moves: student, method, optimizer, metrics.

        The teacher's are left out unless the method trains it.
        """
        weights = [*self.term_weights.values(), *self.exit_weights.values()]
        parts = [*self.learning_parts, self.optimizer]
        variables = [v for part in parts for v in part.variables]
        return variables + weights + self.metrics_variables

    # ---- the steps of the TensorFlow backend

    if keras.backend.backend() == "tensorflow":

        def train_step(self, data):
            """Runs teacher and student once and updates the weights once."""
            import tensorflow as tf

            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            images, targets = self.augment(x, _as_dict(y))
            teacher = None
            if not self.method.trains_teacher:  # before the tape: nothing is recorded
                teacher = self._guidance(images, targets)
                # one network after the other, or the maps of both are held at once
                with tf.control_dependencies(keras.tree.flatten(teacher)):
                    images = tf.identity(images)
            variables = self._trained_variables()
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([v.value for v in variables])
                if teacher is None:
                    teacher = self._guidance(images, targets, training=True)
                outputs = self(images, training=True)
                loss = self.compute_loss(
                    images, targets, outputs, sample_weight, True, teacher
                )
                scaled = self.optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, variables)
            if not self.optimizer.built:  # for all phases, not for this one's variables
                self.optimizer.build(self.trainable_variables)
            # what no term reaches stays as it is, without L2
            reached = [
                p for p in zip(gradients, variables, strict=True) if p[0] is not None
            ]
            self.optimizer.apply(*zip(*reached, strict=True))
            self._track_loss(loss, x, sample_weight)
            return self.training_logs()

        def test_step(self, data):
            """Runs the student alone, all exits, and moves nothing."""
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            outputs = self(x, training=False)
            loss = self.compute_loss(x, y, outputs, sample_weight, training=False)
            self._track_loss(loss, x, sample_weight)
            return self._logs(self.exits, ())

        def _track_loss(self, loss, x, sample_weight):
            rows = ops.cast(ops.shape(x)[0], "float32")
            rows = rows if sample_weight is None else ops.sum(sample_weight)
            # sum over replicas of loss * N * (W / N) / W is the global loss, exactly
            replicas = num_replicas()
            weight = all_reduce_sum(rows) / replicas
            self._loss_tracker.update_state(loss * replicas, sample_weight=weight)

    def _trained_variables(self):
        network = self._networks.student(self.trained_exits)
        variables = network.trainable_variables + self.method.trainable_variables
        if self.method.trains_teacher:
            teacher = self._networks.teacher(self.trained_exits)
            variables = variables + teacher.trainable_variables
        return variables


def _is_name(method):
    if isinstance(method, str):
        return True
    if not isinstance(method, Method):
        raise UserError(f"method must be a name or a Method, got {method!r}.")
    return False


def _check_parts(student, teacher, method):
    if not exit_names(student):
        raise UserError(
            f"The student {student.name!r} has no output named exit_1, exit_2, ...: "
            "make it with tf_mskd.create_model or tf_mskd.add_exits."
        )
    if teacher is None:
        if method.needs_teacher:
            name = getattr(method, "registry_name", method.name)
            raise UserError(f"Method {name!r} needs a teacher, got None.")
        return
    if not exit_names(teacher):
        raise UserError(
            f"The teacher {teacher.name!r} has no output named exit_1, exit_2, ...: "
            "make it with tf_mskd.create_model or tf_mskd.add_exits."
        )
    for what, theirs, ours in (
        ("classes", _classes(teacher), _classes(student)),
        ("image size", teacher.input_shape[1:], student.input_shape[1:]),
    ):
        if theirs != ours:
            raise UserError(
                f"Teacher and student differ in {what}: teacher {teacher.name!r} has "
                f"{theirs}, student {student.name!r} has {ours}."
            )


def _symbols(model, names):
    tensors = available_outputs(model)
    return {n: keras.KerasTensor(tensors[n].shape, "float32") for n in names}


def _as_dict(y):
    return y if isinstance(y, dict) else {"label": y}


def _mean_of_views(value, rows):
    if not len(value.shape):  # a TensorShape is true, the empty one too
        return value
    return ops.mean(ops.reshape(value, (rows, -1)), axis=1)


def _check_backend(method):
    if keras.backend.backend() == "tensorflow":
        return
    if method.trains_teacher or method.changes_batch:
        method.fail(
            "changes the batch or trains the teacher, which needs the TensorFlow "
            f"backend; KERAS_BACKEND is {keras.backend.backend()}."
        )


def _classes(model):
    return model.output[exit_names(model)[-1]].shape[-1]
