"""The distillation methods, one a file."""
