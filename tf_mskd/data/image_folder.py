"""Own images on disk: one folder a split, one folder a class."""

import pathlib
from collections.abc import Mapping

import numpy as np

from tf_mskd.data.arrays import STREAMED, Source, Split, check_memory
from tf_mskd.data.decode import Undecodable, decode_into, shape_of, unreadable
from tf_mskd.data.file_index import FileIndex
from tf_mskd.data.folder_layout import LAYOUT, list_images
from tf_mskd.data.patches import read_patches
from tf_mskd.data.reading import AS_THEY_ARE, Reading
from tf_mskd.data.stored_images import StoredImages, decoded
from tf_mskd.utils.errors import UserError


def load_folder(
    data_dir: str | None,
    image_size: int | None = None,
    test_fraction: float = 0.0,
    patch_size: int = 0,
    reading: Reading = AS_THEY_ARE,
) -> Source:
    """Reads the images below `data_dir`, see `list_images` for where they lie.

    Every format that Pillow decodes, as `decode.py` describes. Classes and files are
    taken in sorted order: class k is the k-th folder name.

    Args:
        data_dir: path of the root folder.
        image_size: int or None; None takes the size of the first training image.
        test_fraction: float in [0, 1), see `list_images`.
        patch_size: int >= 0, side of the patches that the images are cut into, see
            `read_patches`; 0 reads them whole.
        reading: `Reading`; `read_patches` reads in its own way.

    Returns:
        `Source` with images uint8 [N, H, W, 3]. The pixels are the same however they
        are held.

    Raises:
        UserError: folder missing, empty or unlike between splits; unreadable image.
    """
    if not data_dir:
        raise UserError(f"Data set 'folder' needs --data_dir, a root with {LAYOUT}.")
    root = pathlib.Path(data_dir).expanduser()
    listing = list_images(root, test_fraction)
    if list(listing.train) == ["images", "masks"]:
        raise UserError(f"{root} holds images and masks: take --task=segmentation.")
    if patch_size:
        train, test = (
            read_patches(files, patch_size, image_size)
            for files in (listing.train, listing.test)
        )
        return Source("folder", train, test, tuple(listing.train), _notes(listing))
    if image_size is None:
        shape = shape_of(next(iter(listing.train.values()))[0])
    else:
        shape = (image_size, image_size, 3)
    parts = (listing.train, listing.test)
    count = sum(len(files) for part in parts for files in part.values())
    in_files = reading.stays_in_files(count, shape)
    if not in_files:
        check_memory(str(root), count, shape, more=" or --memory=stream")
    if in_files or reading.skip_bad:
        train, test = (_stored_split(part, root, shape, reading) for part in parts)
        notes = (STREAMED, *_notes(listing)) if in_files else _notes(listing)
        if not in_files:
            train, test = decoded(train), decoded(test)
        return Source("folder", train, test, tuple(listing.train), notes)
    train, train_sizes = _read_split(listing.train, shape, reading)
    test, test_sizes = _read_split(listing.test, shape, reading)
    sizes = np.concatenate([train_sizes, test_sizes])
    notes = (*resized(sizes, shape, reading.resize), *_notes(listing))
    return Source("folder", train, test, tuple(listing.train), notes)


def _notes(listing):
    return tuple(passed_over(listing.passed_over))


def _stored_split(class_files, root, shape, reading):
    paths, labels = _files_of(class_files)
    index = FileIndex(paths, root)
    images = StoredImages(index, labels, shape, reading)
    return Split(images, {"label": labels})


def _files_of(class_files):
    """The paths of all classes, and the label of each."""
    paths = [path for files in class_files.values() for path in files]
    counts = [len(files) for files in class_files.values()]
    return paths, np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def _read_split(class_files, shape, reading):
    """The split, and the height and width [N, 2] that its files have."""
    paths, labels = _files_of(class_files)
    images = np.empty((len(paths), *shape), np.uint8)
    sizes = np.empty((len(paths), 2), np.int64)
    try:
        decode_into(images, sizes, paths, reading.resize, reading.centre)
    except Undecodable as error:
        raise unreadable(paths[error.position], error) from error
    return Split(images, {"label": labels}), sizes


def resized(sizes: np.ndarray, shape: tuple[int, ...], resize: str) -> list[str]:
    """One note if any image had another size.

    Args:
        sizes: int [N, 2], heights and widths of the files.
        shape: (H, W, ...) of all images.
        resize: "crop" or "squeeze".
    """
    other = sizes[(sizes != shape[:2]).any(axis=1)]
    if not len(other):
        return []
    other = other[np.argsort(other.prod(axis=1), kind="stable")]
    low, high = ("{}x{}".format(*size) for size in (other[0], other[-1]))
    span = low if low == high else f"{low} to {high}"
    return [f"{len(other):,} of {len(sizes):,} resized from {span} ({resize})"]


def passed_over(counts: Mapping[str, int]) -> list[str]:
    """One note of what was not taken, by kind, if there is any."""
    parts = [f"{count} {kind}" for kind, count in sorted(counts.items()) if count]
    return [f"passed over: {', '.join(parts)}"] if parts else []
