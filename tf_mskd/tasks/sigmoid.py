"""Labels, guides and hits where every output answers a question of its own."""

import typing
from collections.abc import Mapping

from keras import ops

from tf_mskd.tasks.ensemble import ensemble_scores
from tf_mskd.utils.types import Tensor


def binary_cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy of yes-or-no answers, the mean over an example's questions.

    BCE[b] = mean_n [-y ln p - (1 - y) ln(1 - p)], y = labels[b, n],
    p = sigmoid(logits[b, n])

    Args:
        labels: float [B, N], in [0, 1].
        logits: float [B, N], any range.

    Returns:
        float32 [B], in nats.

    Example:
        >>> float(binary_cross_entropy([[1.0, 0.0]], [[0.0, 0.0]])[0])  # ln 2
        0.6931471824645996
    """
    labels, logits = _float32(labels), _float32(logits)
    # -ln sigmoid(z) = softplus(-z), and softplus(z) - softplus(-z) = z
    return ops.mean(ops.softplus(logits) - labels * logits, axis=-1)


def bernoulli_kl(target_logits: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Divergence of softened yes-or-no answers, times T squared, mean over questions.

    KD_T[b] = T^2 * mean_n [p ln(p / q) + (1 - p) ln((1 - p) / (1 - q))],
    p = sigmoid(sg target_logits[b, n] / T), q = sigmoid(logits[b, n] / T)

    With one question this is `softmax.softened_kl` of the logits (z, 0). No gradient
    flows into `target_logits`.

    Args:
        target_logits: float [B, N], the teacher's; any range.
        logits: float [B, N], the student's; any range.
        temperature: float > 0, softens both.

    Returns:
        float32 [B], in nats times T^2; 0 where the rows agree.

    Source: Yang, Xie, Zong, Feng, Niu, Sugiyama, Huang, "Multi-Label Knowledge
        Distillation", ICCV 2023, arXiv 2308.06453, the term of logits.
    Departs from the source: softened by T, and the mean over questions instead of their
        sum.

    Example:
        >>> kl = bernoulli_kl([[2.1972246]], [[0.0]], temperature=2.0)
        >>> round(float(kl[0]), 4)  # 4 * (0.75 ln 1.5 + 0.25 ln 0.5)
        0.5232
    """
    target = ops.stop_gradient(_float32(target_logits)) / temperature
    logits = _float32(logits) / temperature
    p = ops.sigmoid(target)
    yes = ops.log_sigmoid(target) - ops.log_sigmoid(logits)
    no = ops.log_sigmoid(-target) - ops.log_sigmoid(-logits)
    return temperature**2 * ops.mean(p * yes + (1 - p) * no, axis=-1)


def vote_of_odds(
    outputs: Mapping[str, typing.Any],
    kind: str = "logits",
    weights: Mapping[str, float] | None = None,
) -> Tensor:
    """The ensemble of answers that are each yes or no, as logits.

    Args:
        outputs: dict, exit name -> float [B, N]; at least one.
        kind: "logits" for the mean of the exits', "probabilities" for the log odds of
            the mean probabilities.
        weights: dict, exit name -> float, or None for the mean.

    Returns:
        float32 [B, N].

    Example:
        >>> vote_of_odds({"exit_1": [[1.0]], "exit_2": [[3.0]]}).numpy().tolist()
        [[2.0]]
    """
    if kind != "probabilities":
        return ensemble_scores(outputs, kind, weights)
    probabilities = {n: ops.sigmoid(_float32(z)) for n, z in outputs.items()}
    p = ensemble_scores(probabilities, "logits", weights)
    return ops.log(p + 1e-12) - ops.log(1 - p + 1e-12)


def agreement(labels: Tensor, logits: Tensor) -> Tensor:
    """The part of an example's questions that are answered right.

    Args:
        labels: float [B, N]; yes is above 0.5.
        logits: float [B, N]; yes is above 0.

    Returns:
        float32 [B], in [0, 1].

    Example:
        >>> agreement([[1.0, 0.0]], [[2.0, 1.0]]).numpy().tolist()
        [0.5]
    """
    right = ops.equal(_float32(labels) > 0.5, _float32(logits) > 0)
    return ops.mean(ops.cast(right, "float32"), axis=-1)


def _float32(x):
    return ops.cast(ops.convert_to_tensor(x), "float32")
