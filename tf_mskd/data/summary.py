"""One line that says what was read."""

import numpy as np

from tf_mskd.data.arrays import Source
from tf_mskd.utils.errors import one_line

LISTED = 8  # classes whose counts are listed one by one, at most


def describe(source: Source) -> str:
    """Returns one line: images of each split and class, their shape, and the notes.

    Example:
        >>> from tf_mskd.data.sources import load_source
        >>> print(describe(load_source("digits")).partition(", test")[0])
        data digits: train 1,438 images (10 classes of 139 to 146)
    """
    names = source.class_names
    train, test = (
        np.bincount(split.labels, minlength=len(names))
        for split in (source.train, source.test)
    )
    line = (
        f"data {source.name}: train {train.sum():,} images ({_classes(names, train)}), "
        f"test {test.sum():,} ({_classes(names, test)}), "
        f"{'x'.join(map(str, source.image_shape))}"
    )
    return one_line("; ".join([line, *source.notes]))


def _classes(names, counts):
    if len(names) <= LISTED:
        pairs = zip(names, counts, strict=True)
        return ", ".join(f"{name} {count:,}" for name, count in pairs)
    low, high = counts.min(), counts.max()
    span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{len(names)} classes of {span}"
