"""Prepared TensorFlow Datasets with a mask for each image, read into arrays."""

import io
import typing

import numpy as np
import tensorflow as tf

from tf_mskd.data import cityscapes
from tf_mskd.data.arrays import Source, Split, check_memory
from tf_mskd.data.image_folder import resized
from tf_mskd.data.masks import Classes, Decoded, decode_pairs, to_source
from tf_mskd.data.tfds_sets import (
    MASKS,
    image_shape,
    open_prepared,
    test_split,
    unreadable,
)
from tf_mskd.utils.errors import UserError

IMAGES = ("image", "image_left")
CLASSES = {  # base name -> what the numbers mean, where it is not as they are
    "oxford_iiit_pet": Classes(("pet", "background", "border"), {1: 0, 2: 1, 3: 2}),
    "cityscapes": cityscapes.CLASSES,
}
READ_BATCH = 64  # images decoded at a time
UNLABELLED = ("cityscapes",)  # sets whose split `test` has masks of void


def load_tfds_masks(
    name: str,
    data_dir: str | None = None,
    image_size: int | None = None,
    resize: str = "crop",
) -> Source:
    """Decodes the train and test (else validation) splits of a prepared TFDS set.

    Args:
        name, data_dir, image_size, resize: see `load_tfds`.

    Returns:
        `Source` with labels uint8 [N, H, W].

    Raises:
        UserError: see `load_source`.
    """
    builder = open_prepared(name, data_dir)
    base = name.split("/")[0].split(":")[0]
    keys = mask_keys(builder.info.features)
    if keys is None:
        raise UserError(
            f"Data set {name!r} has no mask for each image: take "
            "--task=classification, or another set."
        )
    image, mask = (builder.info.features[key] for key in keys)
    if mask.shape[-1] != 1:
        raise UserError(
            f"Masks of {name!r} ({keys[1]!r}) are colours {mask.shape}: expected class "
            "numbers, one channel."
        )
    splits = builder.info.splits
    if base in UNLABELLED:
        splits = {key: splits[key] for key in splits if key != "test"}
    parts = ("train", test_split(name, splits))
    shape = image_shape(name, image.shape, image_size)
    check_memory(name, sum(splits[part].num_examples for part in parts), shape, maps=1)
    classes = CLASSES.get(base, Classes())
    train, test = (_read(builder, part, keys, shape, resize, classes) for part in parts)
    sizes = np.concatenate([train.sizes, test.sizes])
    return to_source(name, train, test, classes, resized(sizes, shape, resize))


def mask_keys(features: typing.Any) -> tuple[str, str] | None:
    """Names of the image and its mask among the features, or None without both."""
    known = list(features) if hasattr(features, "keys") else []
    image = next((key for key in IMAGES if key in known), None)
    mask = next((key for key in MASKS if key in known), None)
    return (image, mask) if image and mask else None


def _read(builder, part, keys, shape, resize, classes):
    """Decodes one split, the files of a few images in memory at a time."""
    size = builder.info.splits[part].num_examples
    images = np.empty((size, *shape), np.uint8)
    maps = np.empty((size, *shape[:2]), np.uint8)
    sizes, highest = np.empty((size, 2), np.int64), np.empty(size, np.int64)
    names = [f"{k} of split {part!r}" for k in range(size)]
    start = 0
    try:
        for rows in _batches(builder, part, keys):
            stop = start + len(rows)
            if stop > size:
                raise OSError(f"more than {size} examples")
            texts = [(name, name) for name in names[start:stop]]
            got = decode_pairs(rows, texts, shape, resize, classes)
            images[start:stop], maps[start:stop] = got.split.images, got.split.labels
            sizes[start:stop], highest[start:stop] = got.sizes, got.highest
            start = stop
        if start != size:
            raise OSError(f"{start} examples instead of {size}")
    except (tf.errors.OpError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        what = f"Split {part!r} of {builder.name!r}"
        raise unreadable(what, builder.data_path, reason) from error
    return Decoded(Split(images, {"label": maps}), sizes, highest, names)


def _batches(builder, part, keys):
    """Yields lists of (image file, mask file)."""
    import tensorflow_datasets as tfds

    dataset = builder.as_dataset(
        split=part,
        shuffle_files=False,
        decoders=dict.fromkeys(keys, tfds.decode.SkipDecoding()),
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    dataset = dataset.map(lambda row: tuple(row[key] for key in keys))
    for files in dataset.batch(READ_BATCH).as_numpy_iterator():
        yield [tuple(map(io.BytesIO, pair)) for pair in zip(*files, strict=True)]
