"""Turns a PyTorch checkpoint into an `.npz` file for `load_torch_weights`.

    python tools/convert_torch.py CHECKPOINT.pth OUT.npz

For files that `load_torch_weights` does not read itself, such as the tar archives of
the first versions of PyTorch; it reads those since, zip archives or not. This needs
PyTorch, which tf_mskd itself does not. Only plain tensors are read from the checkpoint
(`weights_only=True`), so a file from elsewhere cannot run code.
"""

import sys

import numpy as np

from tf_mskd.utils.state_dicts import unwrap


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
