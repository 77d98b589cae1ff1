"""Reads the `.pth` files of torch.save, without PyTorch.

Since PyTorch 1.6 such a file is a zip archive: `NAME/data.pkl`, a pickle of the state
dict whose tensors refer to storages, and `NAME/data/K`, the numbers of storage K. The
files before are read by `torch_sequence`. Pickles are read by `torch_pickle`, which
calls nothing that a file names.
"""

import contextlib
import os
import struct
import typing
import zipfile
import zlib

from tf_mskd.models.raw_arrays import decode, item_size
from tf_mskd.models.torch_pickle import Damaged, read_pickle
from tf_mskd.models.torch_sequence import is_torch_sequence, read_torch_sequence
from tf_mskd.models.torch_tensors import KNOWN, storage_parts
from tf_mskd.utils.errors import UserError

PICKLE = "data.pkl"
UNREADABLE = (  # what zipfile and the pickle's reader raise for a damaged file
    *(ValueError, OverflowError, EOFError, RuntimeError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)
NEITHER = (
    "is no file of torch.save, or cut short: fetch it again. Where PyTorch reads it, "
    "tools/convert_torch.py converts it."
)


def read_torch_file(path: str | os.PathLike) -> typing.Any:
    """Reads a file of torch.save; nothing that it names is imported or called.

    Args:
        path: str or path of a file.

    Returns:
        what was saved: dicts, lists, tuples, text and numbers, and in place of tensors
        and parameters arrays of their shapes, not to be written; bfloat16 as float32.

    Raises:
        UserError: if the file is cut short or damaged, or asks for anything that
            weights do not need.
    """
    shown = str(path)
    is_sequence = is_torch_sequence(path)
    if not is_sequence and not zipfile.is_zipfile(path):
        raise UserError(f"{shown!r} {NEITHER}")
    try:
        if is_sequence:
            return read_torch_sequence(path)
        with zipfile.ZipFile(path) as file:
            return _Archive(file, shown).read()
    except UserError:
        raise
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{shown!r} is no whole file of torch.save: {reason}. Fetch it again."
        ) from None


class _Archive:
    """The records of one file."""

    def __init__(self, file, path):
        self.file, self.path, self.storages = file, path, {}
        names = [name for name in file.namelist() if name.endswith(f"/{PICKLE}")]
        if len(names) != 1:
            raise Damaged(f"it must have one record {PICKLE}, got {len(names)}")
        self.folder = names[0].removesuffix(PICKLE)

    def read(self):
        if f"{self.folder}byteorder" in self.file.namelist():
            order = self.record("byteorder")
            if order.strip() != b"little":
                raise UserError(
                    f"{self.path!r} must be little-endian, got byte order {order!r}: "
                    "save it on a little-endian machine."
                )
        return read_pickle(self.record(PICKLE), self.path, KNOWN, self.storage)

    def record(self, name):
        name = self.folder + name
        with contextlib.suppress(KeyError):
            if self.file.getinfo(name).compress_type != zipfile.ZIP_STORED:
                raise Damaged(f"its record {name!r} is compressed")
            return self.file.read(name)
        raise Damaged(f"it lacks the record {name!r}")

    def storage(self, persistent_id):
        """The numbers of a storage, [N]; the same array for the same storage."""
        key, kind, count = storage_parts(persistent_id)
        if (key, kind) not in self.storages:
            self.storages[key, kind] = self._decoded(f"data/{key}", kind, count)
        return self.storages[key, kind]

    def _decoded(self, name, kind, count):
        data, needed = self.record(name), count * item_size(kind)
        if len(data) < needed:
            raise Damaged(f"record {name!r} has {len(data)} of {needed} bytes")
        return decode(memoryview(data)[:needed], kind)
