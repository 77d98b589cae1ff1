"""Reads the files of torch.save from before PyTorch 1.6, without PyTorch.

Such a file is a sequence: a pickle each of a fixed number, of the format's version, of
the machine that wrote it, of the state dict and of the list of its storages; then for
each storage the count of its numbers (8 bytes) and the numbers. How many bytes a number
takes stands in the pickle of the state dict, which is read twice: first for the kinds
of the storages, then with their numbers.
"""

import io
import os
import pathlib
import typing

from tf_mskd.models.raw_arrays import decode, item_size
from tf_mskd.models.torch_pickle import Damaged, read_pickle
from tf_mskd.models.torch_tensors import KNOWN, STORAGES, storage_parts
from tf_mskd.utils.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C
START = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little") + b"."
COUNT = 8  # bytes of the count before the numbers of a storage


def is_torch_sequence(path: str | os.PathLike) -> bool:
    """Returns whether a file begins as those of torch.save before PyTorch 1.6 do."""
    with open(path, "rb") as file:
        return file.read(len(START)) == START


def read_torch_sequence(path: str | os.PathLike) -> typing.Any:
    """Reads a file of torch.save from before PyTorch 1.6; see `read_torch_file`.

    Args:
        path: str or path of a file that `is_torch_sequence`.

    Returns:
        what was saved, with arrays in place of tensors.

    Raises:
        UserError: if the file asks for anything that weights do not need.
        Damaged: if the file is cut short.
    """
    file, shown = io.BytesIO(pathlib.Path(path).read_bytes()), str(path)
    _, _, machine = (_plain(file, shown) for _ in range(3))
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise UserError(
            f"{shown!r} must be little-endian: save it on a little-endian machine."
        )
    start, found = file.tell(), {}
    read_pickle(file, shown, {**KNOWN, **_NO_TENSORS}, lambda i: _note(found, i))
    storages = _storages(file, _plain(file, shown), found)
    file.seek(start)
    return read_pickle(file, shown, KNOWN, lambda i: storages[storage_parts(i)[0]])


def _plain(file, path):
    """The object of a pickle that refers to nothing."""
    return read_pickle(file, path, {}, _no_storage)


def _no_storage(persistent_id):
    raise Damaged("a list of storages refers to one")


def _no_tensor(*parts):
    """Stands for a tensor while the kinds of the storages are looked for."""


_NO_TENSORS = {
    name: _no_tensor for name in KNOWN if name not in STORAGES and "torch" in name
}


def _note(found, persistent_id):
    key, *rest = storage_parts(persistent_id)
    if found.setdefault(key, rest) != rest:
        raise Damaged(f"storage {key!r} has two kinds or sizes")


def _storages(file, keys, found):
    """Storage key -> its numbers, in the order of the file."""
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(found):
        raise Damaged("its list of storages is not that of its tensors")
    storages = {}
    for key in keys:
        kind, count = found[str(key)]
        stored = int.from_bytes(file.read(COUNT), "little")
        data = file.read(count * item_size(kind))
        if stored != count or len(data) != count * item_size(kind):
            raise Damaged(f"storage {key!r} must have {count} numbers")
        storages[str(key)] = decode(data, kind)
    return storages
