"""Callbacks, one a file; they read logs and set variables, and compute no losses."""

from tf_mskd.callbacks.exit_phases import ExitPhases

__all__ = ["ExitPhases"]
