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
    names, splits = source.class_names, (source.train, source.test)
    train, test = (_told(names, split.labels) for split in splits)
    line = (
        f"data {source.name}: train {len(splits[0].images):,} images "
        f"({train}), test {len(splits[1].images):,} ({test}), "
        f"{'x'.join(map(str, source.image_shape))}"
    )
    return one_line("; ".join([line, *source.notes]))


def _told(names, labels):
    if labels.ndim < 3:
        return _classes(names, _counts(labels, len(names)))
    if labels.ndim == 4:
        return "each with its clean image"
    return _shares(
        names, sum(np.bincount(one.ravel(), minlength=256) for one in labels)
    )


def _shares(names, pixels):
    """Each class' part of the pixels that are not void, and the part that is."""
    known = pixels[: len(names)]
    shares = 100 * known / max(1, known.sum())
    if len(names) <= LISTED:
        pairs = zip(names, shares, strict=True)
        text = ", ".join(f"{name} {share:.1f} %" for name, share in pairs)
    else:
        span = f"{shares.min():.1f} to {shares.max():.1f} %"
        text = f"{len(names)} classes of {span} of the pixels"
    void = pixels.sum() - known.sum()
    return f"{text}, void {100 * void / pixels.sum():.1f} %" if void else text


def _counts(labels, num_classes):
    """Images of each class; one of several classes counts for each of them."""
    if labels.ndim == 2:
        return (labels > 0.5).sum(0)
    return np.bincount(labels, minlength=num_classes)


def _classes(names, counts):
    if len(names) <= LISTED:
        pairs = zip(names, counts, strict=True)
        return ", ".join(f"{name} {count:,}" for name, count in pairs)
    low, high = counts.min(), counts.max()
    span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{len(names)} classes of {span}"
