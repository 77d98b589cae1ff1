"""Which examples each step sees, a function of the seed and the epoch alone."""

import typing

import numpy as np

from tf_mskd.utils.errors import UserError


def steps_per_epoch(ids: np.ndarray, batch_size: int) -> int:
    """Full batches in one pass over `ids` (int64 [n]); the last part-batch is dropped.

    Raises:
        UserError: if there are fewer examples than one batch holds.
    """
    check_batch_size(batch_size)
    if len(ids) < batch_size:
        raise UserError(
            f"batch_size {batch_size} exceeds the {len(ids)} training examples; "
            "set a smaller one."
        )
    return len(ids) // batch_size


def epoch_order(ids: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The order of `ids` (int64 [n]) in one epoch, a permutation fixed by the seed."""
    return np.random.default_rng([seed, epoch]).permutation(ids)


def check_batch_size(batch_size: typing.Any) -> None:
    """Raises `UserError` unless it is a whole number >= 1."""
    if not (isinstance(batch_size, int | np.integer) and batch_size >= 1):
        raise UserError(f"batch_size must be a whole number >= 1, got {batch_size!r}.")
