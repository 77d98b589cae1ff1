"""How a teacher's vector becomes 16-bit words of a cache: whole, or its top k."""

import numpy as np

from tf_mskd.utils.errors import UserError


class WholeRows:
    """All values as float16: relative error at most 2**-11.

    Args:
        size: int, values of a vector.
    """

    def __init__(self, size: int):
        self.words = size

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Encodes float [B, size] as uint16 [B, words]."""
        return _half(values).view(np.uint16)

    def decode(self, words: np.ndarray) -> np.ndarray:
        """Decodes uint16 [B, words] to float16 [B, size]."""
        return words.view(np.float16)


class TopRows:
    """The k largest logits as float16; the others split the remaining probability.

    Each of the others becomes T log mean exp(z / T) over the others' logits z: the
    softmax at temperature T keeps the k largest probabilities and the sum of the rest.
    Below T the rest weighs less than it did and above T more, by Jensen's inequality.

    Args:
        size: int, number of classes, at most 65,536.
        k: int in [1, size).
        temperature: float > 0, T.
    """

    def __init__(self, size: int, k: int, temperature: float = 1.0):
        if not 1 <= k < size <= 2**16:
            raise UserError(
                f"cache_top_k must be at least 1 and below the {size} classes, got {k}."
            )
        self._size, self._k, self._temperature = size, k, temperature
        self.words = 2 * k + 1

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Encodes float [B, size] as uint16 [B, words]: k values, k classes, rest."""
        values = np.asarray(values, np.float64)
        classes = np.argsort(-values, axis=1, kind="stable")
        top = np.take_along_axis(values, classes[:, : self._k], axis=1)
        rest = np.take_along_axis(values, classes[:, self._k :], axis=1)
        largest, T = rest[:, :1], self._temperature
        mean = np.exp((rest - largest) / T).mean(axis=1, keepdims=True)
        rest = largest + T * np.log(mean)
        half = _half(np.concatenate([top, rest], axis=1)).view(np.uint16)
        classes = classes[:, : self._k].astype(np.uint16)
        return np.concatenate([half[:, :-1], classes, half[:, -1:]], axis=1)

    def decode(self, words: np.ndarray) -> np.ndarray:
        """Decodes uint16 [B, words] to float16 [B, size]."""
        half, k = words.view(np.float16), self._k
        values = np.repeat(half[:, -1:], self._size, axis=1)
        classes = words[:, k : 2 * k].astype(np.int64)
        np.put_along_axis(values, classes, half[:, :k], axis=1)
        return values


def _half(values):
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(values, dtype=np.float16)
    if not np.isfinite(half).all():
        raise UserError(
            "The teacher outputs values that float16 cannot hold (not a number, or "
            f"above 65,504; largest magnitude {np.abs(values).max():.3g}): retrain it, "
            "or remove --teacher_cache."
        )
    return half
