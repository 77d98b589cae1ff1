"""Temperature scaling of the exits, and their calibration error."""

import typing

import numpy as np

LOWEST, HIGHEST = 0.1, 10.0  # beyond, float32 softmax has little but 0, 1, 1/classes


def fit_temperature(logits: typing.Any, labels: typing.Any) -> float:
    """Fits the temperature T of least mean CE(labels, z / T) on held-out examples.

    In 1/T this is convex, so there is one minimum. The predicted class stays.

    Args:
        logits: float array [N, classes], N > 0; float64 inside.
        labels: int array [N].

    Returns:
        float in [0.1, 10]; above 1 for an overconfident exit.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017,
        arXiv:1706.04599, section 4.2.
    Departs from the source: the range is bounded.

    Example:
        >>> confident, wrong_once = np.array([[4.0, 0.0]] * 4), [0, 0, 0, 1]
        >>> round(fit_temperature(confident, wrong_once), 3)  # 4 / ln 3
        3.641
    """
    from scipy import optimize, special

    z, rows = np.asarray(logits, np.float64), np.arange(len(labels))

    def loss(log_temperature):
        log_p = special.log_softmax(z / np.exp(log_temperature), axis=-1)
        return -log_p[rows, labels].mean()

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    options = {"xatol": 1e-6}
    fit = optimize.minimize_scalar(
        loss, bounds=bounds, method="bounded", options=options
    )
    return float(np.exp(fit.x))


def calibration_error(probs: typing.Any, labels: typing.Any, bins: int = 15) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart.

    sum_b n_b/N * |accuracy_b - confidence_b|, over the bins ((b-1)/bins, b/bins] of the
    largest probability.

    Args:
        probs: float array [N, classes], N > 0.
        labels: int array [N].
        bins: int > 0, of equal width.

    Returns:
        float in [0, 1]; 0 if 70 % of the predictions of confidence 0.7 are correct, and
        so on.

    Source: Guo et al., ICML 2017, arXiv:1706.04599, equation 3; 15 bins.

    Example:
        >>> calibration_error([[0.75, 0.25]] * 2, [0, 1])
        0.25
    """
    probs = np.asarray(probs, np.float64)
    confidences, correct = probs.max(-1), probs.argmax(-1) == np.asarray(labels)
    places = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=correct - confidences, minlength=bins)
    return float(np.abs(gaps).sum() / len(probs))
