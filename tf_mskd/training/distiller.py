"""Distiller: trains a multi-exit student under a teacher, as any Keras model."""

import typing

import keras
from keras import ops

from tf_mskd.methods.common.create import create_method
from tf_mskd.methods.common.losses import cross_entropy
from tf_mskd.methods.common.method import Method
from tf_mskd.methods.common.rows import mean_over_rows
from tf_mskd.models import ensemble as ensembles
from tf_mskd.models.graph import available_outputs, exit_names
from tf_mskd.training.exit_metrics import ExitMetrics
from tf_mskd.training.loss_weights import LossWeights
from tf_mskd.training.optimizers import SGD
from tf_mskd.training.phase_networks import PhaseNetworks, join_parts
from tf_mskd.training.term_schedule import TermSchedule
from tf_mskd.utils.choices import ENSEMBLES, PHASES
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.replicas import replica_mean
from tf_mskd.utils.targets import as_targets, as_weight, target_spec

if keras.backend.backend() == "tensorflow":
    from tf_mskd.training.tensorflow_steps import TensorFlowSteps as Steps
else:

    class Steps:  # type: ignore[no-redef]
        """Adds nothing: Keras' own steps call compute_loss and compute_metrics."""


class Distiller(Steps, keras.Model):
    """A student in training: `compile`, `fit`, `evaluate` and callbacks as usual.

    L = sum over terms m and exits k of v_m * w_k * mean_b term_{m,k}[b]

    Each step runs the teacher once, outside the gradient tape and in inference mode,
    and the student once. The teacher is the same, bit for bit, after any training,
    except with methods whose teacher learns too.

    Args:
        student: functional Keras model whose output is a dict of exits, "exit_k" ->
            logits [B, classes]; `create_model` and `add_exits` make such models. A
            model with one output, logits, is a student with the exit "exit_1".
        teacher: a model of the same kind, where one output may be probabilities too; or
            a Keras layer or function of a batch that returns logits, for methods that
            read nothing else; or None for methods that need none. Its `trainable` is
            set to False, unless the method trains it.
        method: `Method` or the name of one ("mskd"), or of several ("oto,crd").
        phases: "joint" trains all exits at once. "progressive" trains exits 1..p in
            phase p and computes nothing deeper; the callback `ExitPhases` advances it.
            "detached" stops gradients between stages, so that each stage learns from
            its own exit alone.
        term_weights: dict, term -> float >= 0, instead of the method's defaults v_m.
        exit_weights: dict, exit name -> float >= 0; exits not named keep w_k = 1.
        ensemble: what the ensemble in the metrics averages, "logits" or
            "probabilities".

    Call with images [B, H, W, C], raw values 0 to 255; returns the dict of exits.

    `fit` takes (images, labels), (images, {"label": ..., ...}) or either with sample
    weights; labels are int [B]. `utils.targets.TARGETS` lists the further targets that
    methods read. With targets["teacher"], a dict of the outputs of `teacher_network`
    from an earlier forward pass, the teacher is not run. Logged are "loss", every bare
    term ("kd/exit_1"), the accuracy of every exit ("exit_1_accuracy") and of the
    ensemble ("ensemble_accuracy"), in [0, 1]. `evaluate` runs the student alone; its
    "loss" is the cross-entropy of the ensemble.

    Attributes:
        student, teacher, method, phases, ensemble: the arguments; `method` is always a
            `Method`, student and teacher are functional models with a dict of exits.
        exits: list of str, the names of the student's exits, shallow to deep.
        term_names: tuple of str, the terms "term/output" of the last phase.
        term_weights: dict, term -> scalar variable; callbacks may assign to it.
        exit_weights: dict, exit name -> scalar variable; likewise.
        phase: int, exits 1..phase are trained; set by `set_phase`.
        trained_exits: list of str, their names.

    Raises:
        UserError: if the parts do not fit together; says which and what to do.

    Source: Xu et al., "Multiple-Stage Knowledge Distillation", Applied Sciences
        12(19):9453 (2022), Algorithm 1. "joint" is Algorithm 1 as printed;
        "progressive" is a reconstruction of its "phased recursive training".

    Example:
        >>> make = dict(input_shape=(8, 8, 1), exit_head="linear", width=0.125)
        >>> teacher = tf_mskd.create_model("resnet10", 10, **make)
        >>> student = tf_mskd.create_model("resnet10", 10, exits=(1, 2), **make)
        >>> distiller = tf_mskd.Distiller(student, teacher, "mskd")
        >>> distiller.compile(tf_mskd.SGD(0.05, l2=5e-4))
        >>> images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), "uint8")
        >>> labels = np.arange(16) % 10
        >>> logs = distiller.fit(images, labels, batch_size=8, verbose=0).history
        >>> sorted(logs)[:4]
        ['ce/exit_1', 'ce/exit_2', 'ensemble_accuracy', 'exit_1_accuracy']
        >>> targets = {"label": labels, "index": np.arange(16)}  # for methods like CRD
        >>> weights = np.ones(16)  # optional, one for each image
        >>> logs = distiller.fit(images, targets, sample_weight=weights, verbose=0)
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | None = None,
        method: str | Method = "mskd",
        *,
        phases: str = "joint",
        term_weights: dict[str, float] | None = None,
        exit_weights: dict[str, float] | None = None,
        ensemble: str = "logits",
        name: str = "distiller",  # fixed, as checkpoints keep the variables' paths
        **kwargs,
    ):
        # raw images reach the networks as they are, also in mixed precision
        super().__init__(autocast=False, name=name, **kwargs)
        if phases not in PHASES:
            raise unknown_name("phases", phases, PHASES)
        if ensemble not in ENSEMBLES:
            raise unknown_name("ensemble", ensemble, ENSEMBLES)
        if not isinstance(method, str | Method):
            raise UserError(f"method must be a name or a Method, got {method!r}.")
        self.method = create_method(method) if isinstance(method, str) else method
        student, teacher = join_parts(student, teacher, self.method)
        self.student, self.teacher = student, teacher
        self.phases, self.ensemble = phases, ensemble
        self.exits = exit_names(student)
        if teacher is not None:
            teacher.trainable = self.method.trains_teacher
        self._networks = PhaseNetworks(student, teacher, self.method, phases)
        self.term_names = self._build_method()
        self._create_weights(term_weights or {}, exit_weights or {})
        self._measures = ExitMetrics(self.term_names, self.exits, ensemble)
        # once more as an attribute, which is where Keras finds metrics to reset
        self._means = {**self._measures.terms, **self._measures.accuracies}
        self._evaluating = False
        self.built = True
        self.set_phase(1 if phases == "progressive" else len(self.exits))

    # ---- construction

    def _build_method(self):
        """Runs the method on symbols, which builds it; returns the terms' names."""
        student = _symbols(self.student, self._networks.student_reads(self.exits))
        reads = self._networks.teacher_reads(self.exits)
        teacher = _symbols(self.teacher, reads) if reads else {}
        sizes = self.student.input_shape[1:], getattr(self.method, "num_negatives", 0)
        targets = {
            name: keras.KerasTensor(*target_spec(name, None, *sizes))
            for name in self.method.target_keys
        }
        return tuple(self.method(student, teacher, targets))

    def _create_weights(self, term_weights, exit_weights):
        terms = dict.fromkeys(name.split("/")[0] for name in self.term_names)
        terms = {n: self.method.default_weights.get(n, 1.0) for n in terms}
        weights = LossWeights(self, terms, self.exits, term_weights, exit_weights)
        self._loss_weights = weights
        self.term_weights, self.exit_weights = weights.terms, weights.exits

    # ---- phases

    def set_phase(self, phase: int) -> None:
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

    def set_term_factors(self, factors: dict[str, float]) -> None:
        """Multiplies the terms' weights from the next step on; see `Method.schedule`.

        Args:
            factors: dict, term -> float; terms not named get their constant weight.
        """
        self._loss_weights.set_factors(factors)

    @property
    def trained_exits(self) -> list[str]:
        """The names of the exits that the running phase trains, shallow to deep."""
        return self.exits[: self.phase]

    @property
    def trained_variables(self) -> list[keras.Variable]:
        """The variables that the running phase trains."""
        network = self._networks.student(self.trained_exits)
        variables = network.trainable_variables + self.method.trainable_variables
        if self.method.trains_teacher:
            teacher = self._networks.teacher(self.trained_exits)
            variables = variables + teacher.trainable_variables
        return variables

    @property
    def learning_parts(self) -> list[keras.layers.Layer]:
        """What training changes: student, method, and a teacher that learns."""
        teacher = [self.teacher] if self.method.trains_teacher else []
        return [self.student, self.method, *teacher]

    @property
    def state_variables(self) -> list[keras.Variable]:
        """All variables that training changes: student, method, optimizer, metrics.

        The teacher's are left out unless the method trains it. Their order is part of
        the checkpoints' format.
        """
        weights = [*self.term_weights.values(), *self.exit_weights.values()]
        parts = [*self.learning_parts, self.optimizer]
        variables = [v for part in parts for v in part.variables]
        return variables + weights + self.metrics_variables

    # ---- the networks

    def call(
        self, images: typing.Any, training: bool | None = None
    ) -> dict[str, typing.Any]:
        """Returns the student's outputs; in training, those of the running phase."""
        network = self.student
        if training:
            network = self._networks.student(self.trained_exits)
        return network(images, training=training)

    def evaluation_network(self) -> keras.Model:
        """Returns the student cut after the deepest exit that the phase trains."""
        return self._networks.evaluation(self.trained_exits)

    @property
    def teacher_network(self) -> keras.Model | None:
        """The teacher cut to all that training reads of it, or None."""
        return self._networks.teacher(self.exits)

    def teacher_outputs(
        self, images: typing.Any, training: bool = False
    ) -> dict[str, typing.Any]:
        """Returns the teacher outputs that the running phase reads; {} without one."""
        network = self._networks.teacher(self.trained_exits)
        return {} if network is None else network(images, training=training)

    def teacher_targets(
        self, images: typing.Any, targets: dict[str, typing.Any], training: bool = False
    ) -> dict[str, typing.Any]:
        """Returns the batch's teacher targets: delivered with it, or computed here."""
        if "teacher" not in targets:
            return self.teacher_outputs(images, training)
        reads = self._networks.teacher_reads(self.trained_exits)
        return {name: ops.cast(targets["teacher"][name], "float32") for name in reads}

    # ---- the objective, for every Keras backend

    def augment(
        self, images: typing.Any, targets: dict[str, typing.Any]
    ) -> tuple[typing.Any, dict[str, typing.Any]]:
        """Returns the batch as the method changes it; see `Method.augment`."""
        for key in self.method.target_keys:
            if key not in targets:
                self.method.fail(
                    f"reads targets[{key!r}], the data deliver {', '.join(targets)}: "
                    "pass targets as a dict with that key."
                )
        teacher = None if self.teacher is None else self.teacher_outputs
        return self.method.augment(images, targets, self.call, teacher)

    def compute_loss(
        self,
        x: typing.Any = None,
        y: typing.Any = None,
        y_pred: typing.Any = None,
        sample_weight: typing.Any = None,
        training: bool = True,
        teacher: dict[str, typing.Any] | None = None,
    ) -> typing.Any:
        """Returns the scalar to minimise.

        Args:
            x: float [B, H, W, C], raw images, as `augment` has changed them.
            y: int [B] labels, or a dict of targets with "label"; likewise.
            y_pred: dict of student outputs.
            sample_weight: float [B] or None.
            training: bool; False gives the cross-entropy of the ensemble.
            teacher: dict of teacher outputs, or None to run the teacher here.

        Returns:
            float32 scalar; the sum over replicas is the mean over the global batch.
        """
        targets, sample_weight = as_targets(y), as_weight(sample_weight)
        if not training:
            return self._ensemble_loss(y_pred, targets["label"], sample_weight)
        if teacher is None:
            teacher = self.teacher_targets(x, targets)
        terms = self.method(y_pred, teacher, targets)
        if not terms:
            self.method.fail(
                f"has no term that phase {self.phase} ({', '.join(self.trained_exits)})"
                " computes: use phases='joint'."
            )
        if self.method.rows_per_image > 1:
            images = ops.shape(targets["label"])[0] // self.method.rows_per_image
            terms = {n: mean_over_rows(value, images) for n, value in terms.items()}
        # here, as nothing that Keras' own steps call later sees the terms
        self._measures.update_terms(terms, sample_weight)
        return self._loss_weights.total(terms, sample_weight)

    def _ensemble_loss(self, outputs, label, sample_weight):
        exits = {name: outputs[name] for name in self.exits if name in outputs}
        scores = ensembles.ensemble_scores(exits, self.ensemble)
        if self.ensemble == "probabilities":
            scores = ops.log(scores + 1e-12)
        return replica_mean(cross_entropy(label, scores), sample_weight)

    # ---- metrics

    def compute_metrics(
        self,
        x: typing.Any,
        y: typing.Any,
        y_pred: dict[str, typing.Any],
        sample_weight: typing.Any = None,
    ) -> dict[str, typing.Any]:
        """Updates the accuracies and returns the logs, for Keras' own steps."""
        label, weight = as_targets(y)["label"], as_weight(sample_weight)
        self._measures.update_accuracies(y_pred, label, weight)
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, typing.Any]:
        """Returns the logs of training or, within `evaluate`, of evaluation.

        Keras takes these, exact over all replicas, for the logs of an epoch if the
        names are those of the last step's logs, which are means of replicas' means.
        """
        return self.evaluation_logs() if self._evaluating else self.training_logs()

    def training_logs(self) -> dict[str, typing.Any]:
        """Returns what the running phase has measured since the metrics were reset."""
        exits = self.trained_exits
        reads = self._networks.student_reads
        hidden = set(reads(self.exits)) - set(reads(exits))
        terms = [n for n in self.term_names if n.partition("/")[2] not in hidden]
        return self._logs(terms, exits)

    def evaluation_logs(self) -> dict[str, typing.Any]:
        """Returns what evaluation has measured since the metrics were reset."""
        return self._logs([], self.exits)

    def _logs(self, terms, exits):
        loss = {"loss": self._loss_tracker.result()}
        return {**loss, **self._measures.results(terms, exits)}

    # ---- as any Keras model

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
                "loss, every exit and the ensemble are measured. Remove these "
                "arguments."
            )
        super().compile(optimizer=optimizer, **kwargs)
        if self.method.trains_teacher and self.method.teacher_rate != 1:
            # mixed_float16 wraps the optimizer into one that scales the loss
            optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
            if not isinstance(optimizer, SGD):
                self.method.fail("lowers the teacher's rate: use tf_mskd.SGD.")
            rates = dict.fromkeys(
                map(id, self.teacher.trainable_variables), self.method.teacher_rate
            )
            optimizer.rate_factors = rates

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

    def evaluate(self, *args, **kwargs):
        """Runs the student alone over a data set; as `keras.Model.evaluate`."""
        self._evaluating = True
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._evaluating = False


def _symbols(model, names):
    tensors = available_outputs(model)
    return {n: keras.KerasTensor(tensors[n].shape, "float32") for n in names}
