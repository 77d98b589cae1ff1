"""NumPy float64 formulas, written from the papers and never from the package.

Logits are [B, classes], labels int [B]; losses keep the batch axis.
"""

import numpy as np


def fill(start, shape):
    """Row-major array whose entry k is sin(start + 0.7 k)."""
    return np.sin(start + 0.7 * np.arange(np.prod(shape))).reshape(shape)


# the fixture of known values: single logits, and four exits of student and teacher
STUDENT = 2 * fill(1, [4, 5])
TEACHER = 3 * fill(2, [4, 5])
LABELS = np.array([0, 1, 2, 3])
STUDENT_EXITS = {f"exit_{k}": 2 * fill(0.3 * k, [4, 5]) for k in (1, 2, 3, 4)}
TEACHER_EXITS = {f"exit_{k}": 3 * fill(0.4 * k, [4, 5]) for k in (1, 2, 3, 4)}


def log_softmax(z):
    z = np.asarray(z, np.float64)
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def softmax(z):
    return np.exp(log_softmax(z))


def cross_entropy(labels, z):
    """-ln softmax(z)[b, y_b]."""
    return -log_softmax(z)[np.arange(len(labels)), labels]


def softened_kl(target, z, temperature):
    """T^2 * KL(softmax(t / T) || softmax(z / T)); Hinton et al. 2015."""
    p = softmax(np.asarray(target, np.float64) / temperature)
    log_q = log_softmax(np.asarray(z, np.float64) / temperature)
    ratio = np.log(np.where(p > 0, p, 1.0)) - log_q  # 0 ln 0 = 0
    return temperature**2 * np.sum(p * ratio, -1)


def objective(guides, student, teacher, labels, ce, kd, temperature):
    """sum_k mean_b [ce * CE(y, z_k) + kd * KD_T(t_guide(k), z_k)].

    `guides` is a dict, student exit -> teacher exit; kd = 0 leaves the teacher out.
    """
    total = 0.0
    for name, guide in guides.items():
        total += ce * cross_entropy(labels, student[name]).mean()
        if kd:
            divergence = softened_kl(teacher[guide], student[name], temperature)
            total += kd * divergence.mean()
    return total


def ensemble_scores(exits, kind):
    """Mean logits or mean probabilities of the exits."""
    change = softmax if kind == "probabilities" else np.asarray
    return np.mean([change(z) for z in exits.values()], axis=0)


def sgd(weight, gradients, rates, momentum=0.0, nesterov=False, l2=0.0):
    """PyTorch's SGD: decay in the gradient, the rate outside the velocity."""
    w = np.array(weight, np.float64)
    velocity = None
    for gradient, rate in zip(gradients, rates, strict=True):
        g = gradient + l2 * w
        velocity = g if velocity is None else momentum * velocity + g
        w = w - rate * (g + momentum * velocity if nesterov else velocity)
    return w


def numeric_gradient(function, z, step=1e-6):
    """Central differences of a scalar function."""
    z = np.array(z, np.float64)
    gradient = np.zeros_like(z)
    for index in np.ndindex(z.shape):
        shift = np.zeros_like(z)
        shift[index] = step
        gradient[index] = (function(z + shift) - function(z - shift)) / (2 * step)
    return gradient


def held_out(seed=0, size=600, classes=6, exits=3):
    """Overconfident exits that get better with depth."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size)
    noise = rng.normal(size=(size, classes))
    logits = {}
    for k in range(1, exits + 1):
        noise = 0.6 * noise + 0.8 * rng.normal(size=noise.shape)
        logits[f"exit_{k}"] = 3.0 * ((0.7 + 0.5 * k) * np.eye(classes)[labels] + noise)
    return logits, labels


def early_exits(confidence, correct, macs, limits):
    """Accuracy, fraction of MACs and standard error of the accuracy's difference to the
    full pass under these thresholds, example by example."""
    hits = cost = 0
    differences = []
    for n in range(correct.shape[1]):
        k = 0
        while k < len(confidence) and not confidence[k, n] >= limits[k]:
            k += 1
        hits, cost = hits + correct[k, n], cost + macs[k] / macs[-1]
        differences.append(int(correct[k, n]) - int(correct[-1, n]))
    error = np.std(differences) / np.sqrt(len(differences))
    return hits / correct.shape[1], cost / correct.shape[1], error
