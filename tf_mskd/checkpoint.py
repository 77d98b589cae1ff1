"""The state of a run in one file: all variables and where the run stands.

A state file is an uncompressed npz: one array per variable, in order, and the cursor as
JSON. It is written to a temporary file, flushed and moved, so a killed run leaves the
old file or the new. The zip's CRC-32 of every member finds damage; no pickle is read.
"""

import json
import pathlib
import warnings
import zipfile

import numpy as np

from tf_mskd import files
from tf_mskd.errors import UserError

KEPT = 2


def write_state(path, values, cursor):
    """Writes the values of variables and `cursor` to the npz file `path`.

    Args:
        path: path that ends in ".npz".
        values: list of arrays; their order is part of the format.
        cursor: JSON value.
    """
    arrays = {_key(i): value for i, value in enumerate(values)}
    arrays["cursor"] = np.frombuffer(json.dumps(cursor).encode(), np.uint8)
    with files.replacing(path) as temporary:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)


def read_state(path, variables):
    """Reads a state file into `variables` and returns its cursor.

    Every value is read and checked before the first variable changes.

    Raises:
        UserError: if the file is damaged or belongs to other variables.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            cursor = json.loads(bytes(archive["cursor"]).decode())
            values = [archive[_key(i)] for i in range(len(archive.files) - 1)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"State file {str(path)!r} is damaged: {error}.") from None
    shapes = [tuple(value.shape) for value in values]
    expected = [tuple(variable.shape) for variable in variables]
    if shapes != expected:
        raise UserError(
            f"State file {str(path)!r} holds {len(shapes)} variables, this run has "
            f"{len(expected)}, or their shapes differ: it belongs to another run."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return cursor


class States:
    """The state files of a run folder: the newest two.

    Args:
        folder: path; made if it is missing.
        read_only: bool, for workers beside the one that writes.
    """

    def __init__(self, folder, read_only=False):
        self.folder, self.read_only = pathlib.Path(folder), read_only
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, step, variables, cursor):
        """Writes the state after `step` steps and drops what is older than two."""
        values = [np.asarray(v.numpy()) for v in variables]  # metrics: on every worker
        if self.read_only:
            return
        write_state(self.folder / f"state_{step:010d}.npz", values, cursor)
        for path in self._paths()[KEPT:]:
            path.unlink()

    def restore(self, variables):
        """Reads the newest undamaged state; returns its cursor, or None without one."""
        for path in self._paths():
            try:
                return read_state(path, variables)
            except UserError as error:
                warnings.warn(f"{error} Trying the one before.", stacklevel=2)
        return None

    def _paths(self):
        return sorted(self.folder.glob("state_*.npz"), reverse=True)


def _key(index):
    return f"variable_{index:06d}"
