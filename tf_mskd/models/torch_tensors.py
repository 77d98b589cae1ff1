"""Tensors and storages as the pickles of torch.save describe them, as NumPy arrays."""

import typing

import numpy as np

from tf_mskd.models.torch_pickle import Damaged, Named

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


def storage_parts(persistent_id: typing.Any) -> tuple[str, str, int]:
    """Reads the reference to a storage that stands in a pickle.

    Args:
        persistent_id: tuple, ("storage", kind, key, device, count, ...).

    Returns:
        (key, kind of number as `raw_arrays` names it, count of numbers).

    Raises:
        Damaged: if it is none.
    """
    _, kind, key, _, count, *view = persistent_id
    if not isinstance(kind, Named) or not isinstance(kind.value, str):
        raise Damaged("a storage has no kind of numbers")
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise Damaged("a storage has no key and no size")
    if any(part is not None for part in view):
        raise Damaged("a storage is part of another, which only old files have")
    return key, kind.value, count


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


KNOWN = {  # what a pickle of weights may name
    **STORAGES,
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
