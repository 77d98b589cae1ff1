"""Whole runs on one accelerator under JAX, where TensorFlow is not installed."""
