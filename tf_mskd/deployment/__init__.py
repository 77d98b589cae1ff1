"""From a student to files that run where this library is not installed."""

from tf_mskd.deployment.export import FORMATS, QUANTIZATIONS, export_student

__all__ = ["FORMATS", "QUANTIZATIONS", "export_student"]
