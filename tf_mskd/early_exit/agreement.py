"""How far the exits of one network agree."""

import typing
from collections.abc import Mapping

import numpy as np

from tf_mskd.models import exit_names


def agreement(logits: Mapping[str, typing.Any], labels: typing.Any) -> dict:
    """Measures how far the exits predict, and miss, the same.

    Args:
        logits: dict, exit name -> float array [N, classes].
        labels: int array [N].

    Returns:
        dict of shares of the N examples, in [0, 1]:
        "all_right"    every exit predicts the label
        "none_right"   no exit does
        "only_right"   exit name -> this exit does, and no other
        "oracle"       some exit does: the accuracy of an ideal choice of the exit
        "disagreement" exit name -> exit name -> the two predict different classes

    Source: Fort, Hu & Lakshminarayanan, "Deep Ensembles: A Loss Landscape Perspective",
        arXiv 1912.02757 (2019), the disagreement of predictions.

    Example:
        >>> z = {"exit_1": [[2.0, 0.0], [2.0, 0.0]], "exit_2": [[0.0, 3.0], [1.0, 0.0]]}
        >>> found = agreement(z, [1, 0])
        >>> found["all_right"], found["only_right"], found["oracle"]
        (0.5, {'exit_1': 0.0, 'exit_2': 0.5}, 1.0)
        >>> found["disagreement"]["exit_1"]
        {'exit_1': 0.0, 'exit_2': 0.5}
    """
    names = exit_names(logits)
    told = {name: np.argmax(logits[name], -1) for name in names}
    right = np.array([told[name] == np.asarray(labels) for name in names])  # [K, N]
    count = right.sum(axis=0)
    alone = (right & (count == 1)).mean(axis=1)
    return {
        "all_right": float((count == len(names)).mean()),
        "none_right": float((count == 0).mean()),
        "only_right": {n: float(v) for n, v in zip(names, alone, strict=True)},
        "oracle": float((count > 0).mean()),
        "disagreement": {
            one: {two: float((told[one] != told[two]).mean()) for two in names}
            for one in names
        },
    }
