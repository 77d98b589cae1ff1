"""The ensemble of the exits of one network."""

import itertools
import typing
from collections.abc import Mapping, Sequence

import numpy as np
from keras import ops

from tf_mskd.utils.choices import ENSEMBLES
from tf_mskd.utils.errors import UserError, unknown_name


def ensemble_scores(
    outputs: Mapping[str, typing.Any],
    kind: str = "logits",
    weights: Mapping[str, float] | None = None,
) -> typing.Any:
    """Combines the exits' logits into one score per class.

    kind "logits":         score = sum_k w_k * z_k
    kind "probabilities":  score = sum_k w_k * softmax(z_k)

    Args:
        outputs: dict, exit name -> float [B, classes] logits; at least one.
        kind: "logits" or "probabilities".
        weights: dict, exit name -> float, or None for the mean (1 / number of exits).

    Returns:
        float32 [B, classes]; the predicted class is the argmax. With `weights=None`
        these are mean logits or mean probabilities.

    Raises:
        UserError: if `kind` is unknown or `outputs` is empty.

    Source: Xu et al., Applied Sciences 12(19):9453 (2022), ensemble of the exits;
        whether it averages logits or probabilities is not documented.

    Example:
        >>> z = {"exit_1": [[1.0, 0.0]], "exit_2": [[0.0, 3.0]]}
        >>> [float(v) for v in ensemble_scores(z)[0]]
        [0.5, 1.5]
    """
    if kind not in ENSEMBLES:
        raise unknown_name("ensemble", kind, ENSEMBLES)
    if not outputs:
        raise UserError("An ensemble needs at least one exit, got none.")
    scores = []
    for name, logits in outputs.items():
        score = ops.cast(ops.convert_to_tensor(logits), "float32")
        if kind == "probabilities":
            score = ops.softmax(score, axis=-1)
        scores.append(score * (weights[name] if weights else 1.0 / len(outputs)))
    return sum(scores[1:], start=scores[0])


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Lists every non-empty subset of the exits, small ones first.

    Example:
        >>> subsets(["exit_1", "exit_2"])
        [('exit_1',), ('exit_2',), ('exit_1', 'exit_2')]
    """
    sizes = range(1, len(names) + 1)
    return [s for size in sizes for s in itertools.combinations(names, size)]


def fit_weights(
    outputs: Mapping[str, typing.Any], labels: typing.Any, l2: float = 1e-3
) -> dict[str, float]:
    """Fits one weight per exit on held-out examples (an addition of this library).

    Minimises mean CE(labels, sum_k w_k * z_k) + l2 * sum_k (w_k - 1/K)^2 over w >= 0.
    The small pull towards the plain mean decides where the data do not.

    Args:
        outputs: dict, exit name -> float array [N, classes] of logits, N > 0.
        labels: int array [N].
        l2: float >= 0, strength of the pull towards the mean.

    Returns:
        dict, exit name -> float >= 0, for `ensemble_scores(outputs, "logits",
        weights)`. They are not normalised: their sum is the inverse temperature the
        held-out data prefer.
    """
    from scipy import optimize, special

    names = list(outputs)
    z = np.stack([np.asarray(outputs[n], np.float64) for n in names])  # [K, N, C]
    labels = np.asarray(labels)
    rows, mean = np.arange(len(labels)), np.full(len(names), 1.0 / len(names))

    def objective(w):
        log_p = special.log_softmax(np.tensordot(w, z, 1), axis=-1)
        error = np.exp(log_p)
        error[rows, labels] -= 1.0
        gradient = np.einsum("nc,knc->k", error, z) / len(labels)
        loss = -log_p[rows, labels].mean() + l2 * np.sum((w - mean) ** 2)
        return loss, gradient + 2 * l2 * (w - mean)

    fit = optimize.minimize(
        objective, mean, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(names)
    )
    return {name: float(w) for name, w in zip(names, fit.x, strict=True)}
