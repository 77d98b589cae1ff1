"""The position of a run, which a checkpoint keeps beside the variables."""

import keras

from tf_mskd.training.checkpoint import CheckpointManager
from tf_mskd.utils.errors import UserError


class Cursor:
    """How far a run of `epochs` epochs is; reads, checks and writes itself.

    Args:
        epochs: int > 0, length of the run.
        steps_per_epoch: int > 0.

    Attributes:
        step: int, finished steps of the whole run.
        seconds: float, spent in the running epoch.
        history: list of dicts, the logs of the finished epochs.
    """

    def __init__(self, epochs: int, steps_per_epoch: int):
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.step, self.seconds, self.history = 0, 0.0, []

    @property
    def epoch(self) -> int:
        """The running epoch, counted from 0."""
        return len(self.history)

    @property
    def step_of_epoch(self) -> int:
        """The finished steps of the running epoch; all, if it is to be validated."""
        return self.step - self.epoch * self.steps_per_epoch

    @property
    def has_steps_to_do(self) -> bool:
        """Whether the running epoch lacks steps, and not its validation alone."""
        return self.step_of_epoch < self.steps_per_epoch

    @property
    def is_at_end(self) -> bool:
        """Whether all epochs are finished."""
        return self.epoch >= self.epochs

    def __str__(self):
        if self.is_at_end:
            return "after the last epoch"
        step = f"step {self.step_of_epoch} of {self.steps_per_epoch}"
        return f"at epoch {self.epoch + 1}, {step}"

    @property
    def stopped(self) -> str:
        """What a run says that stops here, its checkpoint on the disk."""
        saved = "Checkpoint saved" if self.step else "No step is done yet"
        return f"Stopped {self}. {saved}; run the same command to resume."

    def write(
        self, checkpoints: CheckpointManager, variables: list[keras.Variable]
    ) -> None:
        """Begins to write a checkpoint of this position and the variables."""
        history = list(self.history)  # it grows while the copy is written
        position = {"step": self.step, "seconds": self.seconds, "history": history}
        checkpoints.write_behind(self.step, variables, position)

    def restore(
        self, checkpoints: CheckpointManager, variables: list[keras.Variable]
    ) -> bool:
        """Moves to the newest checkpoint; returns whether there is one.

        Raises:
            UserError: if none can be used, or its position is not one of this run.
        """
        position = checkpoints.restore(variables)
        if position is None:
            return False
        if not self._is_position(position):
            raise UserError(
                f"The newest checkpoint in {checkpoints.folder} has no position of a "
                f"run of {self.epochs} epochs of {self.steps_per_epoch} steps: it "
                "belongs to another run. Remove it to resume from the previous one."
            )
        self.step, self.history = position["step"], position["history"]
        self.seconds = position["seconds"]
        return True

    def _is_position(self, position):
        position = position if isinstance(position, dict) else {}
        step, history = position.get("step"), position.get("history")
        if not (
            isinstance(step, int)
            and 0 <= step <= self.epochs * self.steps_per_epoch
            and isinstance(position.get("seconds"), int | float)
            and isinstance(history, list)
            and all(isinstance(epoch, dict) for epoch in history)
        ):
            return False
        of_epoch = step - len(history) * self.steps_per_epoch
        numbers = [epoch.get("epoch") for epoch in history]
        return 0 <= of_epoch <= self.steps_per_epoch and numbers == list(
            range(1, len(history) + 1)
        )
