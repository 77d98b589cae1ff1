"""Reads the `.pth` files of torch.save, without PyTorch.

Since PyTorch 1.6 such a file is a zip archive: `NAME/data.pkl`, a pickle of the state
dict whose tensors refer to storages, and `NAME/data/K`, the numbers of storage K. The
pickle is read by `torch_pickle`, which calls nothing that the file names.
"""

import contextlib
import os
import struct
import typing
import zipfile
import zlib

import numpy as np

from tf_mskd.models.raw_arrays import decode, item_size
from tf_mskd.models.torch_pickle import Damaged, Named, read_pickle
from tf_mskd.utils.errors import UserError

STORAGES = {
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
PICKLE = "data.pkl"
UNREADABLE = (  # what zipfile and the pickle's reader raise for a damaged file
    *(ValueError, EOFError, RuntimeError, struct.error, zlib.error),
    zipfile.BadZipFile,
)
NO_ZIP = (
    "is no zip archive of torch.save: if it is a file from before PyTorch 1.6, convert "
    "it with tools/convert_torch.py; else fetch it again."
)


def read_torch_file(path: str | os.PathLike) -> typing.Any:
    """Reads a file of torch.save; nothing that it names is imported or called.

    Args:
        path: str or path of a file of PyTorch 1.6 or later.

    Returns:
        what was saved: dicts, lists, tuples, text and numbers, and in place of tensors
        and parameters arrays of their shapes, not to be written; bfloat16 as float32.

    Raises:
        UserError: if the file is cut short, damaged or of an older format, or asks for
            anything that weights do not need.
    """
    shown = str(path)
    if not zipfile.is_zipfile(path):
        raise UserError(f"{shown!r} {NO_ZIP}")
    try:
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
        known = {
            **STORAGES,
            "collections.OrderedDict": _ordered_dict,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": _parameter,
        }
        return read_pickle(self.record(PICKLE), self.path, known, self.storage)

    def record(self, name):
        name = self.folder + name
        with contextlib.suppress(KeyError):
            if self.file.getinfo(name).compress_type != zipfile.ZIP_STORED:
                raise Damaged(f"its record {name!r} is compressed")
            return self.file.read(name)
        raise Damaged(f"it lacks the record {name!r}")

    def storage(self, persistent_id):
        """The numbers of a storage, [N]; the same array for the same storage."""
        _, kind, key, _, count = persistent_id
        if not isinstance(kind, Named) or not isinstance(kind.value, str):
            raise Damaged("a storage has no kind of numbers")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise Damaged("a storage has no key and no size")
        name = (key, kind.value)
        if name not in self.storages:
            self.storages[name] = self._decoded(f"data/{key}", kind.value, count)
        return self.storages[name]

    def _decoded(self, name, kind, count):
        data, needed = self.record(name), count * item_size(kind)
        if len(data) < needed:
            raise Damaged(f"record {name!r} has {len(data)} of {needed} bytes")
        numbers = decode(memoryview(data)[:needed], kind)
        numbers.flags.writeable = False  # tensors share it
        return numbers


def _ordered_dict():
    """Made empty; the items follow."""
    return {}


def _tensor(storage, offset, size, stride, *unused):
    """A view of a storage; sizes, strides and the offset count numbers, not bytes."""
    if not isinstance(storage, np.ndarray) or len(size) != len(stride):
        raise Damaged("a tensor has no storage, or not one stride for each side")
    if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
        raise Damaged("sizes, strides and offset of a tensor must be 0 or more")
    if 0 in size:
        return np.zeros(size, storage.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= len(storage):
        raise Damaged(f"a tensor reads number {last} of a storage of {len(storage)}")
    width = storage.itemsize
    strides = [n * width for n in stride]
    return np.ndarray(size, storage.dtype, storage, offset * width, strides)


def _parameter(data, *unused):
    """A parameter is its tensor."""
    return data
