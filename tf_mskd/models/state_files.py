"""PyTorch weights from a file: a dict of arrays by PyTorch's names."""

import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from tf_mskd.models.safetensors_file import read_safetensors
from tf_mskd.models.torch_file import read_torch_file
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.state_dicts import WRAPPERS, unwrap


def read_state(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a state dict, by the suffix of its file; nothing in the file is executed.

    Args:
        path: str or path of a `.pth` or `.pt` file of torch.save, a `.safetensors`
            file, or an `.npz` file of tools/convert_torch.py.

    Returns:
        dict, name -> array; without what surrounds a state dict in a checkpoint, and
        without the prefix "module.".

    Raises:
        UserError: if there is no such file, or it cannot be read as weights alone.
    """
    path = pathlib.Path(path)
    if path.suffix not in READERS:
        raise UserError(
            f"PyTorch weights are read from {', '.join(READERS)} files, got "
            f"{str(path)!r}. Make an .npz of another with tools/convert_torch.py."
        )
    if not path.is_file():
        raise UserError(f"No file of PyTorch weights at {str(path)!r}: check the path.")
    try:
        read = READERS[path.suffix](path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Cannot read {str(path)!r}: {reason}.") from None
    state = unwrap(read) if isinstance(read, Mapping) else {}
    if not state or not all(_is_entry(*item) for item in state.items()):
        raise UserError(
            f"{str(path)!r} must hold tensors by name, alone or as "
            f"{' or '.join(map(repr, WRAPPERS))}: save model.state_dict()."
        )
    return state


def _is_entry(name, value):
    return isinstance(name, str) and isinstance(value, np.ndarray)


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, EOFError, zipfile.BadZipFile):  # pickles are a ValueError
        raise UserError(
            f"{str(path)!r} is no whole .npz file of arrays: make it again with "
            "tools/convert_torch.py."
        ) from None


READERS = {
    ".pth": read_torch_file,
    ".pt": read_torch_file,
    ".safetensors": read_safetensors,
    ".npz": _read_npz,
}
