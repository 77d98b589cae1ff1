"""Distiller: trains a multi-exit student under a teacher, as any Keras model."""

import os
import types
import typing

import keras
from keras import ops

from tf_mskd.methods.common.create import create_method
from tf_mskd.methods.common.method import Method
from tf_mskd.methods.common.rows import mean_over_rows
from tf_mskd.models.graph import available_outputs, exit_names
from tf_mskd.tasks import Task, create_task
from tf_mskd.training.batch import num_rows, read_targets, read_weight
from tf_mskd.training.distiller_files import DistillerFiles, read_teacher
from tf_mskd.training.distiller_fit import DistillerFit
from tf_mskd.training.distiller_logs import DistillerLogs
from tf_mskd.training.exit_metrics import ExitMetrics
from tf_mskd.training.loss_weights import LossWeights
from tf_mskd.training.phase_networks import PhaseNetworks, join_parts
from tf_mskd.utils.choices import ENSEMBLES, PHASES
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.replicas import num_replicas, replica_mean
from tf_mskd.utils.targets import IMAGE, target_spec

if keras.backend.backend() == "tensorflow":
    from tf_mskd.training.tensorflow_steps import TensorFlowSteps as Steps
else:

    class Steps:  # type: ignore[no-redef]
        """Adds nothing: Keras' own steps call compute_loss and compute_metrics."""


@keras.saving.register_keras_serializable(package="tf_mskd")
class Distiller(Steps, DistillerLogs, DistillerFit, DistillerFiles, keras.Model):
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
            read nothing else; or the path of a `.keras` file or a run folder; or None
            for methods that need none. It stays as it is, its `trainable` too, unless
            the method trains it.
        method: `Method` or the name of one ("mskd"), or of several ("oto,crd").
        task: what the exits answer, a `Task` or the name of one.
        phases: "joint" trains all exits at once. "progressive" trains exits 1..p in
            phase p and computes nothing deeper; the callback `ExitPhases` advances it.
            "detached" stops gradients between stages, so that each stage learns from
            its own exit alone.
        term_weights: dict, term -> float >= 0, instead of the method's defaults v_m.
        exit_weights: dict, exit name -> float >= 0; exits not named keep w_k = 1.
        ensemble: what the ensemble in the metrics averages, "logits" or
            "probabilities".
        teacher_size: int or (height, width), size of the images that the teacher gets,
            in pixels: it resizes the student's itself (bilinear). None: their own.
        store_teacher: bool, whether files of the Distiller hold the weights of a
            teacher that does not learn.

    `save`, `keras.saving.load_model` and `ModelCheckpoint` keep the whole state of
    training but the weights of a teacher that does not learn. One that was given by a
    path is read from there again; `store_teacher` keeps the weights in the file; else
    give `distiller.teacher` its weights before `fit`. `export` is the student's.

    Call with images [B, H, W, C], raw values 0 to 255; returns the dict of exits.

    `fit` takes (images, labels), (images, {"label": ..., ...}) or either with sample
    weights [B] or [B, 1], which scale the loss as in Keras. Labels are class numbers
    [B] or [B, 1] of any dtype, or one-hot or soft [B, classes]; where the term "ce"
    weighs 0 there may be none. Inputs may be any tree that the student takes. A batch
    whose weights are all 0 changes nothing (on several devices: adds no gradient).
    `utils.targets.TARGETS` lists the further targets that
    methods read. With targets["teacher"], a dict of the outputs of `teacher_network`
    from an earlier forward pass, the teacher is not run. Logged are "loss", every bare
    term ("kd/exit_1"), the task's figure of every exit ("exit_1_accuracy") and of the
    ensemble ("ensemble_accuracy"), in [0, 1]. `evaluate` runs the student alone; its
    "loss" is the label loss of the ensemble.

    Attributes:
        student, teacher, method, task, phases, ensemble: the arguments; `method` is
            always a `Method`, `task` a `Task`, student and teacher are functional
            models with a dict of exits.
        exit_shape: tuple of int, shape of an exit's output without the batch axis.
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
        teacher: keras.Model | str | os.PathLike | None = None,
        method: str | Method = "mskd",
        *,
        task: str | Task = "classification",
        phases: str = "joint",
        term_weights: dict[str, float] | None = None,
        exit_weights: dict[str, float] | None = None,
        ensemble: str = "logits",
        teacher_size: int | tuple[int, int] | None = None,
        store_teacher: bool = False,
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
        self.task = create_task(task)
        self.method.set_task(self.task)
        network, path = read_teacher(teacher, self.task)
        student, teacher = join_parts(
            student, network, self.method, self.task, teacher_size
        )
        if store_teacher and teacher is None:
            raise UserError("store_teacher=True needs a teacher, got None.")
        self.student = student
        self._given = types.SimpleNamespace(  # not tracked by Keras
            teacher=teacher,
            teacher_path=path,
            fingerprint=None,  # of a file's teacher, until it has its weights
            looked=False,  # at the teacher, in the first `fit`
            compiled={},
            config={},
        )
        if self.method.trains_teacher:
            teacher.trainable = True
            self._learning_teacher = teacher
        self.phases, self.ensemble = phases, ensemble
        self._given.config = {
            "term_weights": dict(term_weights or {}),
            "exit_weights": dict(exit_weights or {}),
            "store_teacher": store_teacher,
            "teacher_size": teacher_size,
        }
        self.exits = exit_names(student)
        self.exit_shape = tuple(student.output[self.exits[-1]].shape[1:])
        self.task.check_outputs(student.name, self.exit_shape)
        image_shape = self._image_shape()
        self._networks = PhaseNetworks(student, teacher, self.method, phases)
        self.term_names = self._build_method(image_shape)
        self._create_weights(term_weights or {}, exit_weights or {})
        self._measures = ExitMetrics(self.task, self.term_names, self.exits, ensemble)
        # once more as an attribute, which is where Keras finds metrics to reset
        self._means = {**self._measures.terms, **self._measures.qualities}
        self._label_loss = self.task.label_loss
        self._evaluating, self._labelled = False, True
        self.built = True
        self.set_phase(1 if phases == "progressive" else len(self.exits))

    # ---- construction

    def _build_method(self, image_shape):
        """Runs the method on symbols, which builds it; returns the terms' names."""
        student = _symbols(self.student, self._networks.student_reads(self.exits))
        reads = self._networks.teacher_reads(self.exits)
        teacher = _symbols(self.teacher, reads) if reads else {}
        sizes = image_shape, getattr(self.method, "num_negatives", 0)
        specs = {n: target_spec(n, None, *sizes) for n in self.method.target_keys}
        label, dtype = self.task.label_spec(self.exit_shape)
        specs["label"] = (None, *label), dtype
        targets = {n: keras.KerasTensor(*specs[n]) for n in self.method.target_keys}
        return tuple(self.method(student, teacher, targets))

    def _image_shape(self):
        """(H, W, C), None each where the student does not read one image alone."""
        inputs = self.student.inputs
        if len(inputs) == 1 and len(inputs[0].shape) == 4:
            return tuple(inputs[0].shape[1:])
        if self.method.changes_batch:
            shapes = ", ".join(str(tuple(t.shape)) for t in inputs)
            self.method.fail(
                f"changes images [B, H, W, C], the student reads {shapes}: take a "
                "method that leaves the batch as it is, such as 'mskd'."
            )
        return (None,) * len(IMAGE)

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
    def teacher(self) -> keras.Model | None:
        """The teacher as it was given; no part of this model unless it learns."""
        return self._given.teacher

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
            return self.teacher_outputs(targets.get("teacher_view", images), training)
        reads = self._networks.teacher_reads(self.trained_exits)
        return {name: ops.cast(targets["teacher"][name], "float32") for name in reads}

    # ---- the objective, for every Keras backend

    def augment(
        self, images: typing.Any, targets: dict[str, typing.Any]
    ) -> tuple[typing.Any, dict[str, typing.Any]]:
        """Returns the batch as the method changes it; see `Method.augment`."""
        self._check_targets(targets)
        teacher = None if self.teacher is None else self.teacher_outputs
        return self.method.augment(images, targets, self.call, teacher)

    def _check_targets(self, targets):
        use, delivered = self.method.label_use, ", ".join(targets) or "nothing"
        for key in self.method.target_keys:
            if key in targets:
                continue
            if key != "label":
                self.method.fail(
                    f"reads targets[{key!r}], the data deliver {delivered}: pass "
                    "targets as a dict with that key."
                )
            if use != "terms" or "ce" not in self.term_weights:
                self.method.fail(f"reads labels, the data deliver {delivered}.")
            if not self._loss_weights.never_counts("ce"):
                self.method.fail(
                    f"reads labels, the data deliver {delivered}: pass labels, or "
                    "term_weights={'ce': 0.0} to learn from the teacher alone."
                )
        if use == "class" and "label" in targets and len(targets["label"].shape) == 2:
            self.method.fail(
                "needs class numbers, got one-hot or soft labels: pass "
                "np.argmax(labels, axis=-1), or take another method, such as 'mskd'."
            )

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
            x: any tree of inputs [B, ...], as `augment` has changed them.
            y: labels or a dict of targets, as `fit` takes them; likewise.
            y_pred: dict of student outputs.
            sample_weight: [B], [B, 1], a number or None.
            training: bool; False gives the label loss of the ensemble.
            teacher: dict of teacher outputs, or None to run the teacher here.

        Returns:
            float32 scalar; the sum over replicas is the mean over the global batch.
        """
        targets = self.read_targets(y)
        sample_weight = read_weight(sample_weight, x)
        if not training:
            return self._ensemble_loss(y_pred, targets, sample_weight)
        if teacher is None:
            self._check_targets(targets)
            teacher = self.teacher_targets(x, targets)
        terms = self.method(y_pred, teacher, targets)
        if not terms:
            self.method.fail(
                f"has no term that phase {self.phase} ({', '.join(self.trained_exits)})"
                " computes: use phases='joint'."
            )
        if self.method.rows_per_image > 1:
            images = num_rows(y_pred) // self.method.rows_per_image
            terms = {n: mean_over_rows(value, images) for n, value in terms.items()}
        # here, as nothing that Keras' own steps call later sees the terms
        self._measures.update_terms(terms, sample_weight)
        loss = self._loss_weights.total(terms, sample_weight)
        network = self._networks.student(self.trained_exits)
        return loss + self._added_losses(network)

    def _added_losses(self, network):
        """What regularizers and `add_loss` of the student's layers add, as in Keras."""
        parts = [network, self.method]
        if self.method.trains_teacher:
            parts.append(self.teacher)
        added = [loss for part in parts for loss in part.losses]
        if keras.backend.backend() != "tensorflow":  # the steps hand them to the model
            added = self.losses
        added = [ops.cast(loss, "float32") for loss in added]
        return sum(added) / num_replicas() if added else 0.0

    def read_targets(self, y: typing.Any) -> dict[str, typing.Any]:
        """Returns the targets of a batch; see `batch.read_targets`."""
        return read_targets(y, self.task, self.exit_shape)

    def _ensemble_loss(self, outputs, targets, sample_weight):
        if "label" not in targets:
            raise UserError(
                "Evaluation needs labels, the data deliver "
                f"{', '.join(targets) or 'nothing'}: pass y, or call predict."
            )
        exits = {name: outputs[name] for name in self.exits if name in outputs}
        answer = self.task.vote(exits, self.ensemble)
        loss = self._label_loss(targets["label"], answer)
        return replica_mean(loss, sample_weight) + self._added_losses(self.student)


def _symbols(model, names):
    tensors = available_outputs(model)
    return {n: keras.KerasTensor(tensors[n].shape, "float32") for n in names}
