"""Prepared TensorFlow Datasets image-classification sets, read into arrays."""

import difflib
import functools
import importlib
import io
import json
import os
import re
import typing

import numpy as np
import tensorflow as tf

from tf_mskd.data.arrays import (
    STREAMED,
    Source,
    Split,
    check_labels,
    check_memory,
)
from tf_mskd.data.decode import decode_into
from tf_mskd.data.reading import AS_THEY_ARE, Reading
from tf_mskd.data.stored_images import decoded
from tf_mskd.data.tfds_streams import stored_split
from tf_mskd.utils.choices import ARCHIVED_SETS
from tf_mskd.utils.cores import usable_cores
from tf_mskd.utils.errors import UserError, unknown_name

DEFAULT_DIR = os.path.join("~", "tensorflow_datasets")
MASKS = ("segmentation_mask", "segmentation_label", "annotation")  # features
READ_BATCH = 512  # images decoded at a time


def find_builder(name: str, data_dir: str | None = None) -> typing.Any:
    """Returns the TFDS builder of `name` without touching the network.

    Args:
        name: str, a registered TFDS name (a config may follow: "name/config"), one of
            ours, or any set that lies prepared in `data_dir`.
        data_dir: directory of prepared sets; None is the TFDS default.

    Raises:
        UserError: if no such set is known, or its builder cannot be made.
    """
    import tensorflow_datasets as tfds
    from google.protobuf.json_format import ParseError

    check_known(name, data_dir)
    try:
        return tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except (json.JSONDecodeError, KeyError, ParseError) as error:
        reason = f"its description is damaged: {error}"
        raise unreadable(repr(name), data_dir or DEFAULT_DIR, reason) from error
    except (AssertionError, ImportError, RuntimeError, ValueError) as error:
        # Among them: no such config or version, or a folder that holds no data set.
        raise not_prepared(name, data_dir) from error


def check_known(name: str, data_dir: str | None = None) -> None:
    """Raises the `UserError` of an unknown name; see `find_builder`."""
    if name in ARCHIVED_SETS:
        importlib.import_module(f"tf_mskd.data.{name}")  # registers it with TFDS
    if not is_registered(name) and not _lies_in(name, data_dir):
        near = difflib.get_close_matches(str(name).lower(), _registered(), n=3)
        known = {
            "digits",
            "nuclei",
            "low_light",
            "folder",
            "pairs",
            "pascal_voc",
            "cifar10",
            "cifar100",
            *ARCHIVED_SETS,
            *near,
        }
        raise UserError(
            f"{unknown_name('data set', name, known)} "
            "Other TensorFlow Datasets names work too."
        )


def is_registered(name: str) -> bool:
    """Returns whether TFDS knows how to make a set; a config may follow its name."""
    return _base_name(name) in _registered()


def _registered():
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def _base_name(name):
    """Name without config and version, "mnist_corrupted/identity:1.0.0"."""
    return re.split("[/:]", str(name))[0]


def _lies_in(name, data_dir):
    base, directory = _base_name(name), os.path.expanduser(data_dir or DEFAULT_DIR)
    return bool(base) and os.path.isdir(os.path.join(directory, base))


def not_prepared(name: str, data_dir: str | None) -> UserError:
    """`UserError` that says how to prepare a TFDS set."""
    archive = "" if is_registered(name) else "--archive=DIR "  # of parquet files
    archive = "--archive=ZIP " if name in ARCHIVED_SETS else archive
    return UserError(
        f"Data set {name!r} is not prepared in {data_dir or DEFAULT_DIR}; run python "
        f"-m tf_mskd.data.prepare --dataset={name} {archive}"
        f"--data_dir={data_dir or 'DIR'}"
    )


def open_prepared(name: str, data_dir: str | None = None) -> typing.Any:
    """Returns the builder of a set that lies in `data_dir`; see `find_builder`."""
    check_known(name, data_dir)
    if not _lies_in(name, data_dir):
        raise not_prepared(name, data_dir)
    builder = find_builder(name, data_dir)
    if not builder.is_prepared():
        raise not_prepared(name, data_dir)
    return builder


def load_tfds(
    name: str,
    data_dir: str | None = None,
    image_size: int | None = None,
    reading: Reading = AS_THEY_ARE,
) -> Source:
    """Reads the train and test (else validation) splits of a prepared TFDS set.

    Args:
        name: str, TFDS name of a set with keys `image` and `label`, a class, or
            `labels`, several.
        data_dir: directory it was prepared in; None is the TFDS default.
        image_size: int or None; resize to a square.
        reading: `Reading`; sets of several classes an image are always decoded.

    Returns:
        `Source`; within a split the order is that in which TFDS reads them.

    Raises:
        UserError: see `load_source`.
    """
    builder = open_prepared(name, data_dir)
    image, label, key_of_label = _features(name, builder.info.features)
    splits = {"train": "train", "test": test_split(name, builder.info.splits)}
    shape = image_shape(name, image.shape, image_size)
    sizes = [builder.info.splits[key].num_examples for key in splits.values()]
    in_files = _stay_in_files(name, reading, key_of_label, sum(sizes), shape)
    if not in_files:
        check_memory(name, sum(sizes), shape, more=" or --memory=stream")
    parts = {}
    for size, (part, key) in zip(sizes, splits.items(), strict=True):
        try:
            if in_files or reading.skip_bad:
                stored = stored_split(builder, key, "label", shape, reading)
                parts[part] = stored if in_files else decoded(stored)
                continue
            read = functools.partial(_read_label, key_of_label, len(label.names))
            parts[part] = _read_split(builder, key, size, shape, reading, read)
        except (tf.errors.OpError, OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            what = f"Split {key!r} of {name!r}"
            raise unreadable(what, builder.data_path, reason) from error
    for part, key in splits.items():
        if parts[part].labels.ndim == 1:
            check_labels(name, key, parts[part].labels, len(label.names))
    notes = (STREAMED,) if in_files else ()
    return Source(name, parts["train"], parts["test"], tuple(label.names), notes)


def _stay_in_files(name, reading, key_of_label, num_images, shape):
    if key_of_label == "label":
        return reading.stays_in_files(num_images, shape)
    if reading.memory == "stream" or reading.skip_bad:
        raise UserError(
            f"Images of {name!r} have several classes each, which --memory=stream and "
            "--bad_images=skip cannot: leave them out."
        )
    return False


def unreadable(what: str, folder: typing.Any, reason: str) -> UserError:
    """`UserError` of a prepared set whose files are damaged."""
    return UserError(
        f"{what} in {folder} cannot be read ({reason}); delete that directory and "
        "prepare the set again."
    )


def _features(name, features):
    """The features of image and class, and the key of the latter, checked."""
    import tensorflow_datasets as tfds

    image, label, labels = (
        features[key] if hasattr(features, "keys") and key in features else None
        for key in ("image", "label", "labels")
    )
    key_of_label = "label"
    if label is None and isinstance(labels, tfds.features.Sequence):
        key_of_label, label = "labels", labels.feature
    if not isinstance(image, tfds.features.Image) or not isinstance(
        label, tfds.features.ClassLabel
    ):
        keys = ", ".join(features) if hasattr(features, "keys") else str(features)
        if any(key in keys for key in MASKS):
            raise UserError(
                f"Data set {name!r} has a mask for each image and no class: take "
                "--task=segmentation."
            )
        raise UserError(
            f"Data set {name!r} is not an image-classification set: expected features "
            f"'image' and 'label' (or 'labels'), got {keys}."
        )
    if image.np_dtype != np.uint8:
        raise UserError(f"Images of {name!r} must be uint8, got {image.np_dtype}.")
    return image, label, key_of_label


def test_split(name: str, splits: typing.Any) -> str:
    """The split "test", or "validation" where there is none."""
    if "train" in splits:
        for key in ("test", "validation"):
            if key in splits:
                return key
    raise UserError(
        f"Data set {name!r} needs the splits train and test (or validation), it has "
        f"{', '.join(splits) or 'none'}; choose another data set."
    )


def image_shape(
    name: str, shape: tuple[int | None, ...], image_size: int | None
) -> tuple[int, ...]:
    """(H, W, C) after resizing; `UserError` where images vary and are not resized."""
    if image_size is not None:
        shape = (image_size, image_size, shape[-1])
    known = tuple(side for side in shape if side is not None)
    if len(known) < len(shape):
        raise UserError(
            f"Images of {name!r} vary in size ({shape}); set --image_size to resize."
        )
    return known


def _read_label(key, num_classes, row):
    """The class of a row, or a row of 0 and 1 for its classes."""
    if key == "label":
        return row[key]
    counts = tf.reduce_sum(tf.one_hot(row[key], num_classes), 0)
    return tf.minimum(counts, 1.0)


def _read_split(builder, key, size, shape, reading, read_label):
    """Decodes one split into a preallocated array, a few hundred images at a time."""
    import tensorflow_datasets as tfds

    def select(row):  # batching would fail on other features of varying length
        return row["image"], read_label(row)

    dataset = builder.as_dataset(
        split=key,
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    dataset = dataset.map(select, num_parallel_calls=usable_cores())
    options = tf.data.Options()
    options.autotune.enabled = False  # see `pipeline`
    dataset = dataset.with_options(options)
    images = np.empty((size, *shape), np.uint8)
    spec = dataset.element_spec[1]
    dtype = np.float32 if spec.dtype.is_floating else np.int32
    labels = np.empty((size, *spec.shape), dtype)
    sizes = np.empty((size, 2), np.int64)
    start = 0
    for files, label in dataset.batch(READ_BATCH).prefetch(1).as_numpy_iterator():
        stop = start + len(label)
        if stop > size:
            raise OSError(f"more than {size} examples")
        part, labels[start:stop] = slice(start, stop), label
        contents = list(map(io.BytesIO, files))
        decode_into(images[part], sizes[part], contents, reading.resize, reading.centre)
        start = stop
    if start != size:
        raise OSError(f"{start} examples instead of {size}")
    return Split(images, {"label": labels})
