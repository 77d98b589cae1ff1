"""Callbacks, one a file; they read logs and set variables, and compute no losses."""

from tf_mskd.callbacks.best_student import BestStudent
from tf_mskd.callbacks.exit_phases import ExitPhases

__all__ = ["BestStudent", "ExitPhases"]
