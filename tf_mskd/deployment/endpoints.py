"""The functions of an exported student, by name.

ensemble            the ensemble of all exits
exit_k              exit k alone, nothing else is computed
early_exit          one image; stages behind the exit that it takes are not run
early_exit_batched  many images; each stage runs for those that have not exited

All take `image`, uint8 [B, H, W, C] raw pixels, and the last two `threshold`, a float32
scalar: 0 or more is used at every exit, below 0 stands for the calibrated thresholds.
All return "probabilities" float32 [B, classes], "class" int32 [B] and "exit" int32 [B],
the number in the name of the exit taken.
"""

import typing

import keras
import tensorflow as tf

from tf_mskd.early_exit import criteria
from tf_mskd.early_exit.policy import ExitPolicy
from tf_mskd.models import graph
from tf_mskd.utils.names import number
from tf_mskd.utils.private import keep_branches

# The int8 converter leaves these operations in float32: in steps of 1/256 the exit
# decisions would differ from the calibrated ones, and thresholds below 0 become 0.
DECISION = "exit_decision"


class HasEndpoints(typing.Protocol):
    """What a file is written from: a student, and the functions made of it."""

    student: keras.Model

    def functions(self) -> dict[str, typing.Any]:
        """Returns a dict, endpoint name -> `tf.function` of fixed input signature."""


class Endpoints:
    """The endpoints of a student as TensorFlow functions.

    Args:
        student: functional float32 model of one image, whose output is a dict of exits.
        names: list of str, its exits to export, shallow to deep.
        policy: `ExitPolicy` for these exits.
    """

    def __init__(self, student: keras.Model, names: list[str], policy: ExitPolicy):
        self.student, self.names, self.policy = student, names, policy
        outputs = graph.available_outputs(student)
        self._exits = [outputs[name] for name in names]
        self.numbers = [number(name) for name in names]
        self._temperatures = [policy.temperatures[name] for name in names]
        self._thresholds = [policy.thresholds[name] for name in names]

    def functions(self) -> dict[str, typing.Any]:
        """Returns a dict, endpoint name -> `tf.function` of fixed input signature."""
        shape = self.student.input.shape[1:]
        images = tf.TensorSpec((None, *shape), tf.uint8, "image")
        image = tf.TensorSpec((1, *shape), tf.uint8, "image")
        threshold = tf.TensorSpec((), tf.float32, "threshold")
        bodies: dict[str, tuple] = {"ensemble": (self._ensemble, images)}
        for k, name in enumerate(self.names):
            bodies[name] = (self._exit(k), images)
        bodies["early_exit"] = (self._early_exit, image, threshold)
        bodies["early_exit_batched"] = (self._early_exit_batched, images, threshold)
        return {
            name: tf.function(body, input_signature=specs, autograph=False)
            for name, (body, *specs) in bodies.items()
        }

    def _ensemble(self, image):
        logits = graph.replay(self._exits, self._start(image))
        with tf.name_scope(DECISION):
            p = criteria.answers_so_far(logits, self._temperatures)
        return self._outputs(p, self.numbers[-1])

    def _exit(self, k):
        def body(image):
            logits = graph.replay([self._exits[k]], self._start(image))
            with tf.name_scope(DECISION):
                p = criteria.answers_so_far(logits, [self._temperatures[k]])
            return self._outputs(p, self.numbers[k])

        return body

    def _early_exit(self, image, threshold):
        limits = self._limits(threshold)

        def run(k, known, total, answers):
            known = dict(known)  # a branch must not see what another one computed
            (logits,) = graph.replay([self._exits[k]], known)
            total, answer = self._answer(k, logits, total)
            answers = [*answers, answer]
            here = (answer, tf.constant([self.numbers[k]]))
            if k == len(self.names) - 1:
                return here
            with tf.name_scope(DECISION):
                # a scalar before it is compared: reshaping is free while it is a float
                exits = tf.reshape(self._confidence(answers), ()) >= limits[k]
            return _either(
                exits, lambda: here, lambda: run(k + 1, known, total, answers)
            )

        p, number = run(0, self._start(image), None, [])
        return {**self._outputs(p, 0), "exit": number}

    def _early_exit_batched(self, image, threshold):
        limits = self._limits(threshold)
        classes = self._exits[0].shape[-1]
        # run(k) holds stage(k) in a branch, which holds run(k + 1), and so on: one
        # conditional a stage. Each level returns (row, probabilities, exit number) of
        # the images that reached it, those that exit here in front of the deeper ones;
        # the rows restore the order of the batch at the end.

        def run(k, known, total, answers, rows):
            # never no images: TensorFlow 2.21 gives a convolution of none a wrong shape
            return _either(
                tf.size(rows) > 0,
                lambda: stage(k, dict(known), total, answers, rows),
                lambda: (rows, tf.zeros([0, classes]), rows),
            )

        def stage(k, known, total, answers, rows):
            (logits,) = graph.replay([self._exits[k]], known)
            total, answer = self._answer(k, logits, total)
            answers = [*answers, answer]
            number = tf.fill(tf.shape(rows), self.numbers[k])
            if k == len(self.names) - 1:
                return rows, answer, number
            exits = self._confidence(answers) >= limits[k]
            exiting, staying = (tf.where(mask)[:, 0] for mask in (exits, ~exits))
            kept = self._read_by(self._exits[k + 1 :], known)
            parts = ({key: known[key] for key in kept}, total, answers, rows)
            parts = tf.nest.map_structure(lambda t: tf.gather(t, staying), parts)
            here = [tf.gather(t, exiting) for t in (rows, answer, number)]
            behind = run(k + 1, *parts)
            return tuple(tf.concat(pair, 0) for pair in zip(here, behind, strict=True))

        rows = tf.range(tf.shape(image)[0])
        rows, p, number = run(0, self._start(image), None, [], rows)
        order = tf.argsort(rows)
        outputs = self._outputs(tf.gather(p, order), 0)
        return {**outputs, "exit": tf.gather(number, order)}

    def _start(self, image):
        """The image as the student takes it: id of its symbolic input -> tensor."""
        symbolic = self.student.inputs[0]
        return {id(symbolic): tf.cast(image, symbolic.dtype)}

    def _read_by(self, exits, known):
        """Ids of the known tensors that deeper exits are computed from."""
        calls = graph.calls_to(exits, known)
        read = {id(t) for node in calls for t in node.input_tensors}
        return (read | {id(t) for t in exits}) & set(known)

    def _answer(self, k, logits, total):
        """(Total with exit k, its probabilities); `total` is that of exits before."""
        kind = self.policy.answer
        with tf.name_scope(DECISION):
            total = criteria.add_exit(total, logits, self._temperatures[k], kind)
            return total, criteria.answer_of(total, k + 1, kind)

    def _limits(self, threshold):
        """Float32 scalars, one an exit, all made in front of the first branch."""
        with tf.name_scope(DECISION):
            is_calibrated = threshold < 0
            return [tf.where(is_calibrated, t, threshold) for t in self._thresholds]

    def _confidence(self, answers):
        with tf.name_scope(DECISION):
            return criteria.confidence(self.policy.criterion, answers)

    def _outputs(self, p, number):
        with tf.name_scope(DECISION):
            winner = tf.argmax(p, axis=-1, output_type=tf.int32)
        exit = tf.fill(tf.shape(p)[:1], number)
        return {"probabilities": p, "class": winner, "exit": exit}


def _either(condition, yes, no):
    """`tf.cond` whose branches stay functions; takes and returns what that does.

    Usually TensorFlow inlines both when a graph is loaded, and switches off each of the
    operations of the branch not taken at every call.
    """
    results = tf.cond(condition, yes, no)
    operation = results[0].op
    while operation.type == "Identity":
        operation = operation.inputs[0].op
    keep_branches(operation)
    return results
