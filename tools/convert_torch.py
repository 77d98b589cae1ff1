"""Turns a PyTorch checkpoint into an `.npz` file for `load_torch_weights`.

    python tools/convert_torch.py CHECKPOINT.pth OUT.npz

Needs PyTorch, which tf_mskd itself does not. Only plain tensors are read from the
checkpoint (`weights_only=True`), so a file from elsewhere cannot run code.
"""

import sys

import numpy as np


def unwrap(checkpoint):
    """The state dict inside a checkpoint, without the prefix of data parallelism.

    Args:
        checkpoint: dict, the state dict or a dict that holds it as "model" or
            "state_dict".

    Returns:
        dict of tensors by name, none starting with "module.".

    Example:
        >>> unwrap({"epoch": 3, "model": {"module.fc.bias": 0}})
        {'fc.bias': 0}
    """
    for key in ("model", "state_dict"):
        if isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
    return {name.removeprefix("module."): value for name, value in checkpoint.items()}


def main(argv):
    """Converts one file; returns the exit code, 2 for a mistake the user can mend."""
    if len(argv) != 3 or not argv[2].endswith(".npz"):
        print("Usage: python tools/convert_torch.py CHECKPOINT.pth OUT.npz")
        return 2
    try:
        import torch
    except ImportError:
        print("convert_torch needs PyTorch, which is not installed: pip install torch")
        return 2
    try:
        checkpoint = torch.load(argv[1], map_location="cpu", weights_only=True)
    except FileNotFoundError:
        print(f"There is no checkpoint {argv[1]!r}. Give the path of a .pth file.")
        return 2
    arrays = {name: np.asarray(value) for name, value in unwrap(checkpoint).items()}
    np.savez(argv[2], **arrays)
    print(f"Wrote {len(arrays)} arrays to {argv[2]}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
