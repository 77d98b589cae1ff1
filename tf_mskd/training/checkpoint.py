"""The state of a run in one file: all variables and where the run stands.

A state file is an uncompressed npz: one array per variable, in order, and the cursor as
JSON. It is written to a temporary file, flushed and moved, so a killed run leaves the
old file or the new. The zip's CRC-32 of every member finds damage; no pickle is read.
"""

import contextlib
import json
import re
import warnings
import zipfile

import numpy as np

from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError

KEPT = 2
NAME = re.compile(r"state_(\d{10})\.npz")  # other files in the folder are left alone


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
            _check_stored(archive.zip)
            cursor = json.loads(archive["cursor"].tobytes().decode())
            values = [archive[_key(i)] for i in range(len(archive.files) - 1)]
    except Exception as error:  # NumPy and zipfile raise many kinds for a damaged file
        reason = str(error)[:200] or type(error).__name__
        raise UserError(f"State file {str(path)!r} is damaged: {reason}.") from None
    kinds = [(tuple(value.shape), value.dtype.name) for value in values]
    expected = [(tuple(variable.shape), variable.dtype) for variable in variables]
    if kinds != expected:
        raise UserError(
            f"State file {str(path)!r} holds {len(kinds)} variables, this run has "
            f"{len(expected)}, or their shapes or types differ: it belongs to another "
            "run."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return cursor


class States:
    """The state files of a run folder: the newest two.

    Args:
        folder: path; made if it is missing.
        read_only: bool, for workers beside the one that writes.

    Raises:
        UserError: if the folder cannot be made.
    """

    def __init__(self, folder, read_only=False):
        self.folder, self.read_only = files.make_folder(folder), read_only

    def write(self, step, variables, cursor):
        """Writes the state after `step` steps; drops all but it and the one before.

        A state of more steps is dropped too: the run has passed it over as damaged.
        """
        values = [np.asarray(v.numpy()) for v in variables]  # metrics: on every worker
        if self.read_only:
            return
        newest = self.folder / f"state_{step:010d}.npz"
        write_state(newest, values, cursor)
        paths = self._paths()
        kept = [path for path in paths if path <= newest][:KEPT]
        for path in set(paths) - set(kept):
            with contextlib.suppress(OSError):
                path.unlink()

    def restore(self, variables):
        """Reads the newest undamaged state; returns its cursor, or None without any.

        Raises:
            UserError: if there are states but none of them can be used.
        """
        problem = None
        for path in self._paths():
            try:
                return read_state(path, variables)
            except UserError as error:
                problem = error
                warnings.warn(f"{error} Trying the one before.", stacklevel=2)
        if problem is not None:
            raise UserError(
                f"{problem} There is no state before it. To train from the first step "
                f"again, remove {self.folder}."
            )
        return None

    def newest_step(self):
        """Returns the step of the newest state, 0 without any."""
        return max((int(NAME.fullmatch(p.name)[1]) for p in self._paths()), default=0)

    def _paths(self):
        paths = self.folder.glob("state_*.npz")
        return sorted((p for p in paths if NAME.fullmatch(p.name)), reverse=True)


def _check_stored(archive):
    """Refuses packed members: they could unpack to more than the memory holds."""
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED:
            raise UserError(f"its member {member.filename!r} is compressed")


def _key(index):
    return f"variable_{index:06d}"
