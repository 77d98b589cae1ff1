"""What a batch may deliver beside its images, by the names of `Method.target_keys`.

A new target is one entry here and its loader in `data/extra_targets.py`.
"""

import typing

IMAGE = ("height", "width", "channels")


class Target(typing.NamedTuple):
    """One target: what the batch holds for each image.

    Args:
        shape: tuple of str, the sizes of one image's entry; () for a number.
        dtype: str.
        meaning: str, for readers.
    """

    shape: tuple[str, ...]
    dtype: str
    meaning: str


TARGETS = {
    "label": Target((), "int32", "class, in [0, classes)"),
    "index": Target((), "int64", "position in the training split"),
    "negatives": Target(
        ("num_negatives",), "int32", "distinct positions of images of other classes"
    ),
    "other_image": Target(
        IMAGE, "uint8", "an image of another class, augmented in the same way"
    ),
    "second_view": Target(
        IMAGE, "uint8", "the same image, augmented by the run's second augmentation"
    ),
}
OTHER = Target((), "int32", "a number that the user's own data deliver")


def target_spec(
    name: str,
    batch_size: int | None,
    image_shape: tuple[int, ...],
    num_negatives: int = 0,
) -> tuple[tuple[int | None, ...], str]:
    """Returns the shape and dtype of a target's tensor.

    Args:
        name: str, a key of `TARGETS`; any other is a number for each image.
        batch_size: int, or None where it may vary.
        image_shape: (H, W, C).
        num_negatives: int, width of "negatives".

    Returns:
        (tuple, str).

    Example:
        >>> target_spec("negatives", 64, (32, 32, 3), num_negatives=16)
        ((64, 16), 'int32')
    """
    target = TARGETS.get(name, OTHER)
    sizes = dict(zip(IMAGE, image_shape, strict=True), num_negatives=num_negatives)
    return (batch_size, *(sizes[size] for size in target.shape)), target.dtype
