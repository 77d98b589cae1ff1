"""Writes files as torch.save does, without PyTorch, for tests of the readers.

The pickle comes from Python's own pickler over stand-ins for PyTorch's classes, which
stand under PyTorch's module names while it writes.
"""

import collections
import contextlib
import io
import json
import pickle
import sys
import types
import zipfile

import numpy as np

KINDS = {  # NumPy's type -> PyTorch's storage
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
}
FOLDER = "archive"


class Storage:
    """Numbers that tensors share: a flat array; `kind` "bfloat16" has uint16 bits."""

    def __init__(self, numbers, kind=None):
        self.numbers = np.ascontiguousarray(numbers)
        self.kind = kind or self.numbers.dtype.name


class Tensor:
    """A view of a storage, with size, stride and offset in numbers."""

    def __init__(self, storage, size, stride, offset=0):
        self.parts = (storage, offset, tuple(size), tuple(stride))

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (*self.parts, False, collections.OrderedDict())


class Parameter:
    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_parameter
        return rebuild, (self.tensor, True, collections.OrderedDict())


def tensor_of(array):
    """A contiguous tensor with its own storage."""
    array = np.asarray(array, order="C")
    strides = [n // array.itemsize for n in array.strides]
    return Tensor(Storage(array.ravel()), array.shape, strides)


def bfloat16_bits(values):
    """The upper 16 bits of float32, which must lose nothing."""
    bits = np.asarray(values, "float32").view("uint32")
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype("uint16")


@contextlib.contextmanager
def torch_modules():
    """Stand-ins under PyTorch's names, for the time of writing."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in KINDS.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):

        def rebuild(*arguments):
            """A file holds its name; nothing calls it."""

        rebuild.__module__, rebuild.__qualname__ = "torch._utils", name
        setattr(utils, name, rebuild)
    torch._utils = utils
    kept = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        yield torch
    finally:
        for name, module in kept.items():
            sys.modules.pop(name)
            if module:
                sys.modules[name] = module


def save(path, value, protocol=2):
    """torch.save(value, path) with `Tensor` and `Parameter` in place of PyTorch's."""
    data, storages = pickled(value, protocol)
    numbers = {key: given.numbers.tobytes() for key, given in storages.items()}
    save_parts(path, data, numbers)


def save_sequence(path, value, little_endian=True, more=(None,), cut=None):
    """torch.save as before PyTorch 1.6; `more` ends the references to storages."""
    data, storages = pickled(value, 2, more)
    machine = {"protocol_version": 1001, "little_endian": little_endian}
    machine["type_sizes"] = {"short": 2, "int": 4, "long": 4}
    head = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, machine)]
    parts = [*head, data, pickle.dumps(sorted(storages), 2)]
    for _, given in sorted(storages.items()):
        parts += [given.numbers.size.to_bytes(8, "little"), given.numbers.tobytes()]
    path.write_bytes(b"".join(parts)[:cut])


def pickled(value, protocol, more=()):
    """The pickle of a value, and its storages by key."""
    storages, file = {}, io.BytesIO()
    with torch_modules() as torch:

        class Pickler(pickle.Pickler):
            def persistent_id(self, given):
                if not isinstance(given, Storage):
                    return None
                key, _ = storages.setdefault(id(given), (str(len(storages)), given))
                kind = getattr(torch, KINDS[given.kind])
                return ("storage", kind, key, "cpu", given.numbers.size, *more)

        Pickler(file, protocol).dump(value)
    return file.getvalue(), dict(storages.values())


def save_parts(path, data, storages=None, more=(), compression=zipfile.ZIP_STORED):
    """The archive of a pickle, storages by key and further records."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(f"{FOLDER}/data.pkl", data)
        for key, numbers in (storages or {}).items():
            file.writestr(f"{FOLDER}/data/{key}", numbers)
        file.writestr(f"{FOLDER}/version", "3\n")
        for name, content in dict(more).items():
            file.writestr(f"{FOLDER}/{name}", content)


def save_state(path, arrays):
    """A state dict as a module gives it: ordered, with `_metadata` of its own."""
    state = collections.OrderedDict((n, tensor_of(a)) for n, a in arrays.items())
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    save(path, state)


def save_safetensors(path, arrays, change=lambda table: None, cut=None):
    """A `.safetensors` file; `change` spoils its table, `cut` its length."""
    kinds = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64"}
    table, body = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        array = np.asarray(array)
        end = len(body) + array.nbytes
        table[name] = {
            "dtype": "BF16" if array.dtype == "uint16" else kinds[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [len(body), end],
        }
        body += array.tobytes()
    change(table)
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes((len(header).to_bytes(8, "little") + header + body)[:cut])
