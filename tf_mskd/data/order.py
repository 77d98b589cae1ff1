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


def epoch_order(ids: np.ndarray, seed: int, epoch: int, repeats: int = 1) -> np.ndarray:
    """The order of `ids` (int64 [n]) in one epoch, fixed by the seed.

    A permutation; with `repeats` R of them, the first n / R (rounded up) of the
    permutation, each R times in a row, cut to n. Other epochs have others.

    Source: Hoffer et al., "Augment Your Batch: Improving Generalization Through
        Instance Repetition", CVPR 2020, arXiv 1901.09335; Berman et al., "MultiGrain: a
        unified image embedding for classes and instances", arXiv 1902.05509.
    Departs from the source: an epoch keeps its number of steps.

    Example:
        >>> order = epoch_order(np.arange(5), seed=0, epoch=0, repeats=2)
        >>> len(order), order[0] == order[1], len(set(order.tolist()))
        (5, np.True_, 3)
    """
    drawn = np.random.default_rng([seed, epoch]).permutation(ids)
    return np.repeat(drawn[: -(-len(ids) // repeats)], repeats)[: len(ids)]


def epoch_views(epoch: int, repeats: int = 1, views: int = 0) -> np.ndarray:
    """The views that an epoch draws, int64 [repeats], of the 1st, 2nd, ... repeat.

    No two are equal, nor those of two epochs, as long as `views` allows it.

    Args:
        epoch: int, from 0.
        repeats: int >= 1, how often an epoch has an image.
        views: int, different views of each example; 0: any number.

    Example:
        >>> epoch_views(2, repeats=3, views=8).tolist()
        [6, 7, 0]
    """
    numbers = epoch * repeats + np.arange(repeats, dtype=np.int64)
    return numbers % views if views else numbers


def check_repeats(repeats: typing.Any, views: int) -> None:
    """Raises `UserError` unless each of so many repeats has a view of its own."""
    if not (isinstance(repeats, int | np.integer) and repeats >= 1):
        raise UserError(f"repeats must be a whole number >= 1, got {repeats!r}.")
    if 0 < views < repeats:
        raise UserError(
            f"repeats must be at most the number of different views, {views}, got "
            f"{repeats}: the repeats of an image would be equal."
        )


def check_batch_size(batch_size: typing.Any) -> None:
    """Raises `UserError` unless it is a whole number >= 1."""
    if not (isinstance(batch_size, int | np.integer) and batch_size >= 1):
        raise UserError(f"batch_size must be a whole number >= 1, got {batch_size!r}.")
