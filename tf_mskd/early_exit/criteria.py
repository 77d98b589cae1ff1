"""Exit criteria, and the prediction returned at an early exit.

Written with `keras.ops` alone: the same code runs over arrays, in TF graphs and in
TFLite files.
"""

import math
import typing
from collections.abc import Sequence

from keras import ops

from tf_mskd.utils.choices import ANSWERS, CRITERIA
from tf_mskd.utils.errors import UserError, unknown_name


def answers_so_far(
    logits: Sequence[typing.Any],
    temperatures: Sequence[float],
    answer: str = "ensemble",
) -> typing.Any:
    """Probabilities of the classes from the exits computed so far.

    answer "ensemble":  softmax(1/k * sum_i z_i / T_i), over the exits i = 1..k
    answer "exit":  softmax(z_k / T_k)

    With all temperatures 1 and all exits the class is that of
    `ensemble.ensemble_scores(outputs, "logits")`.

    Args:
        logits: list of float [B, classes], exits 1..k, shallow to deep; at least one.
        temperatures: list of float > 0, one for each of them.
        answer: "ensemble" or "exit".

    Returns:
        float32 [B, classes], probabilities.

    Raises:
        UserError: if `answer` is unknown or the two lists differ in length.

    Example:
        >>> exits = [[[2.0, 0.0]], [[0.0, 2.0]]]
        >>> [round(float(p), 3) for p in answers_so_far(exits, [1.0, 1.0])[0]]
        [0.5, 0.5]
        >>> [round(float(p), 3) for p in answers_so_far(exits, [1.0, 2.0], "exit")[0]]
        [0.269, 0.731]
    """
    if answer not in ANSWERS:
        raise unknown_name("answer", answer, ANSWERS)
    if len(logits) != len(temperatures) or not logits:
        raise UserError(
            "An answer needs an exit or more and one temperature for each, got "
            f"{len(temperatures)} for {len(logits)} exits."
        )
    total = None
    for z, temperature in zip(logits, temperatures, strict=True):
        total = add_exit(total, z, temperature, answer)
    return answer_of(total, len(logits), answer)


def add_exit(
    total: typing.Any,
    logits: typing.Any,
    temperature: float,
    answer: str = "ensemble",
) -> typing.Any:
    """Adds an exit to the running total, so that one more exit costs one sum.

    answer "ensemble":  t_k = t_(k-1) + z_k / T_k, t_0 = 0
    answer "exit":  t_k = z_k / T_k

    Args:
        total: float32 [B, classes], t_(k-1); None at the first exit.
        logits: float [B, classes], z_k.
        temperature: float > 0, T_k.
        answer: "ensemble" or "exit".

    Returns:
        float32 [B, classes], t_k.

    Example:
        >>> [float(t) for t in add_exit([[1.0, 0.5]], [[2.0, 0.0]], 2.0)[0]]
        [2.0, 0.5]
    """
    scaled = ops.cast(ops.convert_to_tensor(logits), "float32") * (1.0 / temperature)
    return scaled if total is None or answer == "exit" else total + scaled


def answer_of(total: typing.Any, count: int, answer: str = "ensemble") -> typing.Any:
    """Probabilities at exit k from the running total of the exits so far.

    answer "ensemble":  softmax(t_k / k)
    answer "exit":  softmax(t_k)

    Args:
        total: float32 [B, classes], t_k of `add_exit`.
        count: int, k, the number of exits so far.
        answer: "ensemble" or "exit".

    Returns:
        float32 [B, classes].
    """
    return ops.softmax(total * (1.0 / (count if answer == "ensemble" else 1)), axis=-1)


def confidence(criterion: str, probs: Sequence[typing.Any]) -> typing.Any:
    """Confidence of exit k; an example exits where it is at least the threshold.

    max_probability  p_1, the largest probability of exit k
    margin           p_1 - p_2, the two largest
    entropy          1 - H(p) / log(classes), H(p) = -sum_c p_c log p_c
    patience         1 - 1/r: exits k-r+1..k, and no more, name the same class

    With every criterion all examples exit at exit 1 under a threshold of 0, and none
    exits early under one above 1. For r exits in a row that agree the threshold is
    1 - 1/r, and a little less against rounding: 0.49 for two, 0.66 for three.

    Args:
        criterion: one of `CRITERIA`.
        probs: list of float [B, classes], two classes or more, the probabilities at
            exits 1..k so far; only "patience" reads others than the last.

    Returns:
        float32 [B] in [0, 1], to rounding of a probability of 1.

    Raises:
        UserError: if the criterion is unknown or there is no exit.

    Source: Teerapittayanon et al., BranchyNet, ICPR 2016, arXiv:1709.01686 (entropy);
        Huang et al., MSDNet, ICLR 2018, arXiv:1703.09844 (max_probability); Zhou et
        al., BERT Loses Patience, NeurIPS 2020, arXiv:2006.04152 (patience).
    Departs from the source: all are scaled to [0, 1] and rise with the confidence.

    Example:
        >>> probs = [[[0.5, 0.25, 0.25]], [[0.75, 0.25, 0.0]]]
        >>> {c: round(float(confidence(c, probs)[0]), 3) for c in CRITERIA}
        {'max_probability': 0.75, 'margin': 0.5, 'entropy': 0.488, 'patience': 0.5}
    """
    if criterion not in CRITERIA:
        raise unknown_name("exit criterion", criterion, CRITERIA)
    if not probs:
        raise UserError(
            "An exit criterion needs the probabilities of at least one exit, got none."
        )
    probs = [ops.cast(ops.convert_to_tensor(p), "float32") for p in probs]
    return _CONFIDENCES[criterion](probs)


def _max_probability(probs):
    return ops.max(probs[-1], axis=-1)


def _margin(probs):
    two = ops.top_k(probs[-1], 2)[0]
    return ops.sum(two * [1.0, -1.0], axis=-1)  # in TFLite faster than two slices


def _entropy(probs):
    p = probs[-1]
    logs = ops.log(ops.maximum(p, 1e-30))  # 0 log 0 = 0
    scaled = 1.0 + ops.sum(p * logs, axis=-1) / math.log(p.shape[-1])
    return ops.clip(scaled, 0.0, 1.0)  # rounding must not carry it across 0 or 1


def _patience(probs):
    classes = [_winner(p) for p in probs]
    agree = run = ops.ones_like(probs[-1][:, 0])
    for earlier in classes[-2::-1]:
        agree = agree * ops.cast(ops.equal(earlier, classes[-1]), "float32")
        run = run + agree
    return 1.0 - 1.0 / run


def _winner(p):
    # of integers: the argmax of floats, in Keras 3.15, has an op that TFLite lacks
    is_largest = ops.equal(p, ops.max(p, axis=-1, keepdims=True))
    return ops.argmax(ops.cast(is_largest, "int32"), axis=-1)


_CONFIDENCES = {
    "max_probability": _max_probability,
    "margin": _margin,
    "entropy": _entropy,
    "patience": _patience,
}
