"""Reads a `.safetensors` file: a JSON table of arrays, then their bytes.

Source: the format's description, https://github.com/huggingface/safetensors: 8 bytes,
the length of the header as a little-endian number; the header, a JSON object of name ->
dtype, shape and the two offsets of its bytes; the bytes of all arrays, without gaps.
Departure: dtypes that no weights of convolutions have (8-bit floats, complex numbers)
are refused.
"""

import json
import math
import os
import pathlib

import numpy as np

from tf_mskd.models.raw_arrays import decode, item_size
from tf_mskd.utils.errors import UserError, unknown_name

KINDS = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16"},
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"},
    "BOOL": "?",
}
LENGTH = 8  # bytes before the header
LARGEST_HEADER = 100_000_000  # bytes, as the format's own reader has it


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads all arrays of a `.safetensors` file; every offset is checked.

    Args:
        path: str or path of the file.

    Returns:
        dict, name -> array of its shape; bfloat16 as float32.

    Raises:
        UserError: if the file is cut short or damaged, or holds a dtype that is not
            read.
    """
    data = memoryview(pathlib.Path(path).read_bytes())
    try:
        table, body = _parts(data)
        table.pop("__metadata__", None)
        _check_kinds(table, path)
        _check_places(table, len(body))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{str(path)!r} is no whole .safetensors file: {reason}. Fetch it again."
        ) from None
    return {name: _array(entry, body) for name, entry in table.items()}


def _parts(data):
    """The table of the header, and the bytes behind it."""
    if len(data) < LENGTH:
        raise ValueError(f"it has {len(data)} bytes, its first number takes {LENGTH}")
    length = int.from_bytes(data[:LENGTH], "little")
    if length > min(len(data) - LENGTH, LARGEST_HEADER):
        raise ValueError(f"its header of {length} bytes does not fit into the file")
    end = LENGTH + length
    table = json.loads(bytes(data[LENGTH:end]), object_pairs_hook=_once)
    if not isinstance(table, dict):
        raise ValueError("its header is no JSON object")
    return table, data[end:]


def _once(pairs):
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("its header names an array twice")
    return table


def _check_kinds(table, path):
    for name, entry in table.items():
        kind = entry.get("dtype") if isinstance(entry, dict) else None
        if not isinstance(kind, str):
            raise ValueError(f"{name!r} has no dtype")
        if kind not in KINDS:
            raise unknown_name(f"dtype in {str(path)!r}", kind, KINDS)


def _check_places(table, size):
    """The arrays must fill all bytes behind the header, each byte once."""
    for name, entry in table.items():
        _check_shape(name, entry)
    position = 0
    for name, entry in sorted(table.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        if start != position:
            raise ValueError(f"{name!r} starts at byte {start}, not at {position}")
        position = end
    if position != size:
        raise ValueError(f"its arrays take {position} bytes, the file has {size}")


def _check_shape(name, entry):
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"shape and offsets of {name!r} must be lists of numbers")
    length = offsets[1] - offsets[0]
    needed = math.prod(shape) * item_size(KINDS[entry["dtype"]])
    if length != needed:
        raise ValueError(f"{name!r} has {length} bytes, its shape takes {needed}")


def _are_sizes(values):
    return isinstance(values, list) and all(type(n) is int and n >= 0 for n in values)


def _array(entry, body):
    start, end = entry["data_offsets"]
    return decode(body[start:end], KINDS[entry["dtype"]]).reshape(entry["shape"])
