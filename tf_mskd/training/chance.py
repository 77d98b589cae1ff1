"""Whether a teacher knows more than guessing would, and the warning where it does not.

A teacher with untrained weights, classes in another order or inputs of another scale
still teaches, and its student still learns from the labels: nothing else shows it.
"""

from collections.abc import Mapping

import numpy as np

from tf_mskd.utils.warn import warn

LEVEL = 0.01  # of error, on either side


def is_at_chance(predicted: np.ndarray, labels: np.ndarray) -> bool:
    """Whether predictions hit the labels no more often than guesses would.

    Guesses are predictions of the same frequencies made without looking: they hit with
    the probability c = sum over classes of the shares of predictions and of labels. It
    is chance up to the 99 % point of a binomial distribution with this probability,
    where the examples suffice to tell: where one who hits with (1 + c) / 2 stays below
    that point in 1 % of all cases at most.

    Args:
        predicted: int array [N], classes >= 0.
        labels: int array [N], classes >= 0.

    Returns:
        bool; False for examples that are too few, or nearly all of one class.

    Example:
        >>> labels = np.arange(100) % 10
        >>> is_at_chance(labels, labels), is_at_chance(np.zeros(100, int), labels)
        (False, True)
    """
    from scipy import stats

    classes = 1 + int(max(predicted.max(), labels.max()))
    shares = [np.bincount(v, minlength=classes) / len(v) for v in (predicted, labels)]
    guess = float(shares[0] @ shares[1])
    bound = stats.binom.ppf(1 - LEVEL, len(labels), guess)
    if (predicted == labels).sum() > bound:
        return False
    return bool(stats.binom.cdf(bound, len(labels), (1 + guess) / 2) <= LEVEL)


def warn_at_chance(
    name: str, logits: Mapping[str, np.ndarray], labels: np.ndarray, where: str
) -> None:
    """Warns in one line of the exits of a teacher that are at chance level.

    Args:
        name: str, the teacher's.
        logits: exit name -> array [N, classes].
        labels: int array [N].
        where: str, what the examples are, such as "the test split".
    """
    low = [n for n, v in logits.items() if is_at_chance(v.argmax(-1), labels)]
    if low:
        warn(
            f"teacher {name!r} is at chance level on {where} ({', '.join(low)}): check "
            "that it has its weights, the order of its classes, and that it takes raw "
            "images, 0 to 255."
        )
