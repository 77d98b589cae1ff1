"""Every endpoint of a written file is run on real images and compared with Keras."""

from collections.abc import Callable, Mapping

import numpy as np

from tf_mskd.deployment.endpoints import Endpoints
from tf_mskd.early_exit import criteria
from tf_mskd.early_exit.outcomes import confidences, predictions
from tf_mskd.early_exit.thresholds import NEVER, exit_index
from tf_mskd.utils.errors import UserError

MAX_DIFFERENCE = 1e-4  # of probabilities, float32
AGREEMENT = {"float16": 0.99, "dynamic": 0.9, "int8": 0.9}  # of classes, at least
TIE = 0.95  # a class agrees that is this likely, as a fraction of Keras' likeliest
NUM_IMAGES = 200
THRESHOLDS = (0.0, 0.5, NEVER, -1.0)  # of the early exit, in turn from image to image
BATCH = 50


class Reference:
    """What the endpoints must return, computed with the Keras model.

    Args:
        endpoints: `Endpoints`.
        images: uint8 [N, H, W, C], real images.
    """

    def __init__(self, endpoints: Endpoints, images: np.ndarray):
        self.images = images
        self.names, self._policy = endpoints.names, endpoints.policy
        self._by_position = np.array(endpoints.numbers)
        student = endpoints.student
        parts = [student(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        self._logits = [
            np.concatenate([np.asarray(part[name]) for part in parts])
            for name in self.names
        ]
        self._scales = [self._policy.temperatures[name] for name in self.names]
        thresholds = np.array(THRESHOLDS, np.float32)
        self.thresholds: np.ndarray = np.resize(thresholds, len(images))

    def of(self, endpoint: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Expected (probabilities [N, classes], exit numbers [N], distance [N]).

        The distance is that of the confidences from the thresholds, where rounding may
        decide otherwise; infinite for endpoints that do not decide.
        """
        far = np.full(len(self.images), np.inf)
        if endpoint in self.names:
            k = self.names.index(endpoint)
            p = criteria.answers_so_far(self._logits[k : k + 1], self._scales[k:][:1])
            return np.asarray(p), np.full(len(far), self._by_position[k]), far
        if not endpoint.startswith("early_exit"):
            p = criteria.answers_so_far(self._logits, self._scales)
            return np.asarray(p), np.full(len(far), self._by_position[-1]), far
        return self._early(far)

    def _early(self, far):
        policy, early = self._policy, self.names[:-1]
        logits = dict(zip(self.names, self._logits, strict=True))
        probs = predictions(logits, policy.temperatures, policy.answer)
        found = confidences(policy.criterion, probs)
        calibrated = np.float32([policy.thresholds[name] for name in early])
        limits = np.where(self.thresholds < 0, calibrated[:, None], self.thresholds)
        index = exit_index(found, limits)
        # at 0 and above 1 rounding decides nothing, nor at exits behind the one taken
        reaches = np.arange(len(early))[:, None] <= index
        decides = reaches & (limits > 0) & (limits <= 1)
        gaps = np.where(decides, np.abs(found - limits), np.inf)
        distance = np.min([far, *gaps], axis=0)
        rows = np.arange(len(index))
        return np.stack(probs)[index, rows], self._by_position[index], distance


def verify(
    runners: Mapping[str, Callable], reference: Reference, quantize: str, file: str
) -> dict[str, dict]:
    """Runs all endpoints of a file and refuses it if one departs from Keras.

    Args:
        runners: dict, endpoint name -> function, from the fresh file.
        reference: `Reference`.
        quantize: one of `export.QUANTIZATIONS`; "none" must agree within 1e-4, the
            others in their classes, but for ties, for 99 % (float16) or 90 % of the
            images.
        file: str, for the message.

    Returns:
        dict, endpoint -> {"images", "max_difference" of probabilities where the exit is
        the same, and as fractions "same_class", "same_exit" and "same_or_tie": the
        class is one that Keras finds at least 95 % as likely as its own}.

    Raises:
        UserError: if a number is not finite or an endpoint departs.
    """
    verification = {}
    for endpoint, runner in sorted(runners.items()):  # the first at fault is named
        try:
            got = _run(runner, endpoint, reference)
        except RuntimeError as error:  # some conversions succeed and do not run
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"Endpoint {endpoint!r} of {file} does not run: {reason} Nothing was "
                "written; replace the layer at fault, or export saved_model alone."
            ) from error
        p, number, distance = reference.of(endpoint)
        if not np.isfinite(got["probabilities"]).all():
            raise UserError(
                f"Endpoint {endpoint!r} of {file} returns numbers that are not finite. "
                "Nothing was written; look for overflow in the student's weights."
            )
        same_exit = got["exit"] == number
        difference = np.abs(got["probabilities"] - p).max(axis=-1)
        difference = float(difference[same_exit].max(initial=0.0))
        rows = np.arange(len(p))
        numbers = {
            "images": len(p),
            "max_difference": difference,
            "same_class": float(np.mean(got["class"] == p.argmax(-1))),
            "same_or_tie": float(np.mean(p[rows, got["class"]] >= TIE * p.max(-1))),
            "same_exit": float(np.mean(same_exit)),
        }
        verification[endpoint] = numbers
        if quantize == "none":
            stray = (~same_exit & (distance > MAX_DIFFERENCE)).any()
            is_wrong = difference > MAX_DIFFERENCE or stray
            limit = f"{MAX_DIFFERENCE:g} and the same exits"
        else:
            is_wrong = numbers["same_or_tie"] < AGREEMENT[quantize]
            limit = f"the same class, or a tie, for {AGREEMENT[quantize]:.0%}"
        if is_wrong:
            raise UserError(
                f"Endpoint {endpoint!r} of {file} departs from Keras: probabilities by "
                f"up to {difference:.2g}, same class or a tie "
                f"{numbers['same_or_tie']:.1%}, same exit {numbers['same_exit']:.1%} "
                f"of {len(p)} images; the limit is {limit}. Nothing was written."
            )
    return verification


def _run(runner, endpoint, reference):
    images, thresholds = reference.images, reference.thresholds
    if endpoint == "early_exit":
        calls = [
            {"image": images[i : i + 1], "threshold": thresholds[i]}
            for i in range(len(images))
        ]
        order = np.arange(len(images))
    elif endpoint == "early_exit_batched":  # one call for all images of a threshold
        groups = [np.flatnonzero(thresholds == t) for t in np.unique(thresholds)]
        calls = [{"image": images[g], "threshold": thresholds[g[0]]} for g in groups]
        order = np.argsort(np.concatenate(groups))
    else:
        batches = range(0, len(images), BATCH)
        calls = [{"image": images[i : i + BATCH]} for i in batches]
        order = np.arange(len(images))
    results = [runner(**call) for call in calls]
    return {key: np.concatenate([r[key] for r in results])[order] for key in results[0]}
