"""Little-endian numbers of a file as NumPy arrays, bfloat16 among them."""

import numpy as np

BFLOAT16 = "bfloat16"


def item_size(kind: str) -> int:
    """Bytes of one number.

    Args:
        kind: str, "bfloat16" or NumPy's name of a type, such as "<f4".

    Example:
        >>> item_size("bfloat16"), item_size("<f8")
        (2, 8)
    """
    return 2 if kind == BFLOAT16 else np.dtype(kind).itemsize


def decode(data: bytes | memoryview, kind: str) -> np.ndarray:
    """The numbers that bytes stand for.

    A bfloat16 is the upper half of a float32, and is returned as that float32.

    Args:
        data: bytes, a whole number of items.
        kind: see `item_size`.

    Returns:
        [N], of the type `kind`; float32 for bfloat16.

    Example:
        >>> decode(bytes([0x80, 0x3F, 0x20, 0xC0]), "bfloat16").tolist()
        [1.0, -2.5]
    """
    if kind != BFLOAT16:
        return np.frombuffer(data, kind)
    upper = np.frombuffer(data, "<u2").astype("<u4")
    return (upper << 16).view("<f4")
