"""The draws of `data.counter_random`, bit for bit, in NumPy."""

import numpy as np

from tf_mskd.data.counter_constants import FACTORS, GOLDEN, LAST_SHIFT

WRAP = 2**64


def example_keys(seed: int, view: int, ids: np.ndarray) -> np.ndarray:
    """One 64-bit key per example.

    Args:
        seed: int, any sign, taken modulo 2**64.
        view: int, the number of the pass over the data.
        ids: int64 [B], positions of the examples in the train split.

    Returns:
        uint64 [B].
    """
    key = _mix(np.array([(int(seed) + GOLDEN) % WRAP], np.uint64))
    key = _mix(key + np.uint64(int(view) % WRAP))
    return _mix(key + np.asarray(ids).astype(np.uint64))


def uniform(keys: np.ndarray, draw: int) -> np.ndarray:
    """float32 [B] in [0, 1), on a grid of 2**-24, for draw number `draw` (int >= 0)."""
    return (_bits(keys, draw) >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def integers(keys: np.ndarray, draw: int, bound: int) -> np.ndarray:
    """int32 [B] in [0, bound), for draw number `draw`."""
    high = _bits(keys, draw) >> np.uint64(32)
    return ((high * np.uint64(bound)) >> np.uint64(32)).astype(np.int32)


def _bits(keys, draw):
    return _mix(keys + np.uint64((draw + 1) * GOLDEN % WRAP))


def _mix(z):
    for shift, factor in FACTORS:
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(LAST_SHIFT))
