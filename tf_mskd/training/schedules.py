"""Schedules as pure functions of the step or the epoch."""

import bisect
from collections.abc import Sequence

import keras

from tf_mskd.utils.choices import LEARNING_RATES
from tf_mskd.utils.errors import UserError, unknown_name


def learning_rate(
    kind: str,
    initial: float,
    *,
    epochs: int,
    steps_per_epoch: int,
    drops: Sequence[int] = (),
    decay: float = 0.1,
    warmup_epochs: float = 0,
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate as a Keras schedule of the optimizer step.

    Args:
        kind: "step" (times `decay` after each epoch of `drops`), "cosine" (to 0 at the
            end) or "constant".
        initial: float > 0, the rate at the start, or after the warm-up.
        epochs: int > 0, length of the run.
        steps_per_epoch: int > 0.
        drops: ints, complete epochs after which the rate drops; "step" only.
        decay: float, factor of each drop.
        warmup_epochs: float >= 0, linear warm-up from 0; "cosine" only.

    Returns:
        float (constant) or `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        UserError: for an unknown kind or values that contradict each other.

    Example:
        >>> rate = learning_rate("step", 0.1, epochs=3, steps_per_epoch=10, drops=[2])
        >>> [round(float(rate(step)), 3) for step in (0, 19, 20)]
        [0.1, 0.1, 0.01]
    """
    if kind not in LEARNING_RATES:
        raise unknown_name("learning-rate schedule", kind, LEARNING_RATES)
    if warmup_epochs and kind != "cosine":
        raise UserError(f"warmup_epochs={warmup_epochs} needs lr_schedule=cosine.")
    if kind == "constant" or (kind == "step" and not drops):
        return float(initial)
    if kind == "cosine":
        warmup = int(warmup_epochs * steps_per_epoch)
        if warmup >= epochs * steps_per_epoch:
            raise UserError(
                f"warmup_epochs={warmup_epochs} must be less than epochs={epochs}."
            )
        return _cosine(initial, epochs * steps_per_epoch, warmup)
    # Keras holds the old value up to and including the boundary, hence the -1
    boundaries = [int(epoch * steps_per_epoch) - 1 for epoch in drops]
    values = [initial * decay**i for i in range(len(drops) + 1)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)


def _cosine(initial, steps, warmup):
    """Half a cosine over so many steps, of which the first ones warm up."""
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else initial,
        steps - warmup,
        warmup_target=initial if warmup else None,
        warmup_steps=warmup,
    )


@keras.saving.register_keras_serializable(package="tf_mskd")
class RestartedCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A cosine schedule that starts anew with each phase of progressive training.

    Args:
        initial: float > 0, the rate at the start of each phase, or after its warm-up.
        phase_steps: ints > 0, steps of each phase.
        warmup: int >= 0, steps of linear warm-up of each phase, fewer than it has.

    Raises:
        UserError: if a phase is no longer than its warm-up.

    Example:
        >>> rate = RestartedCosine(0.1, [10, 20])
        >>> [round(float(rate(step)), 3) for step in (0, 5, 10, 20, 30)]
        [0.1, 0.05, 0.1, 0.05, 0.0]
    """

    def __init__(self, initial: float, phase_steps: Sequence[int], warmup: int = 0):
        if warmup >= min(phase_steps):
            raise UserError(
                f"A warm-up of {warmup} steps must be less than the shortest phase, "
                f"which has {min(phase_steps)}: lower warmup_epochs."
            )
        self.initial, self.phase_steps = initial, tuple(phase_steps)
        self.warmup = warmup
        self._phases = [_cosine(initial, steps, warmup) for steps in phase_steps]

    def __call__(self, step):
        """Returns the rate of a step, counted from 0."""
        start, rate = self.phase_steps[0], self._phases[0](step)
        for steps, phase in zip(self.phase_steps[1:], self._phases[1:], strict=True):
            rate = keras.ops.where(step < start, rate, phase(step - start))
            start += steps
        return rate

    def get_config(self):
        """Returns the constructor's arguments."""
        names = ("initial", "phase_steps", "warmup")
        return {name: getattr(self, name) for name in names}


def phase_ends(
    epochs: int, num_phases: int, phase_epochs: Sequence[int] = ()
) -> list[int]:
    """Returns the epoch at which each phase of progressive training ends.

    Args:
        epochs: int > 0, length of the run.
        num_phases: int > 0, one phase per exit.
        phase_epochs: ints that sum to `epochs`, length of each phase; empty for equal
            lengths (a remainder goes to the later phases).

    Returns:
        list of int, increasing, the last one equal to `epochs`.

    Raises:
        UserError: if the lengths do not fit the run.

    Example:
        >>> phase_ends(10, 4)
        [2, 5, 7, 10]
        >>> phase_ends(10, 2, [3, 7])
        [3, 10]
    """
    if not phase_epochs:
        if epochs < num_phases:
            raise UserError(
                f"Progressive training in {num_phases} phases needs at least "
                f"{num_phases} epochs, got epochs={epochs}."
            )
        return [epochs * (phase + 1) // num_phases for phase in range(num_phases)]
    lengths = list(phase_epochs)
    if len(lengths) != num_phases or sum(lengths) != epochs or min(lengths) < 1:
        raise UserError(
            f"phase_epochs must be {num_phases} positive numbers that sum to "
            f"epochs={epochs}, got {','.join(map(str, lengths))}."
        )
    return [sum(lengths[: i + 1]) for i in range(num_phases)]


def phase_of(epoch: int, ends: list[int]) -> int:
    """Returns the phase, counted from 1, that epoch (counted from 0) belongs to."""
    return min(bisect.bisect_right(ends, epoch), len(ends) - 1) + 1
