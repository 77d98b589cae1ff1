"""Which training examples are learnt from and which are held out."""

import numpy as np

from tf_mskd.utils.errors import UserError


def split_ids(
    labels: np.ndarray,
    *,
    validation_fraction: float = 0.0,
    train_fraction: float = 1.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws stratified validation and training positions, class by class.

    The validation part is drawn first, so it is the same for every `train_fraction`;
    a smaller training part is contained in a larger one. A class of n examples gives
    round(n * validation_fraction) to validation, and round(rest * train_fraction) of
    the rest to training, at least one each.

    Args:
        labels: int [N], the labels of the whole training split.
        validation_fraction: float in [0, 1); 0 holds nothing out.
        train_fraction: float in (0, 1], of what validation leaves.
        seed: int >= 0; the result is a pure function of the arguments.

    Returns:
        (train_ids, validation_ids): int64, ascending positions in the train split.

    Raises:
        UserError: if a fraction is out of range, or a class has nothing left to train.

    Example:
        >>> train, validation = split_ids([0, 0, 1, 1], validation_fraction=0.5)
        >>> len(train), len(validation)
        (2, 2)
    """
    labels = np.asarray(labels)
    if not 0 <= validation_fraction < 1:
        raise UserError(
            f"validation_fraction must be in [0, 1), got {validation_fraction!r}."
        )
    if not 0 < train_fraction <= 1:
        raise UserError(f"train_fraction must be in (0, 1], got {train_fraction!r}.")
    if seed < 0:
        raise UserError(f"The seed of a split must be >= 0, got {seed!r}.")
    if not len(labels):
        raise UserError("The train split has no examples; nothing is left to train on.")
    train, validation = [], []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = np.random.default_rng([seed, int(label)]).permutation(members)
        held_out = 0
        if validation_fraction:
            held_out = max(1, round(len(members) * validation_fraction))
        rest = members[held_out:]
        if not len(rest):
            raise UserError(
                f"validation_fraction {validation_fraction!r} leaves class "
                f"{int(label)} ({len(members)} examples) nothing to train on; "
                "set a smaller one."
            )
        validation.append(members[:held_out])
        train.append(rest[: max(1, round(len(rest) * train_fraction))])
    return tuple(
        np.sort(np.concatenate(part)).astype(np.int64) for part in (train, validation)
    )
