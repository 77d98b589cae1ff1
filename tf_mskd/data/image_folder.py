"""Own images on disk: one folder a split, one folder a class."""

import concurrent.futures
import os
import pathlib

import numpy as np
from PIL import Image

from tf_mskd.data.arrays import Source, Split, check_memory
from tf_mskd.utils.errors import UserError

SUFFIXES = (".jpeg", ".jpg", ".png")
LAYOUT = "train/<class>/*.png and test/<class>/*.png"


def load_folder(data_dir: str | None, image_size: int | None = None) -> Source:
    """Reads `train/<class>/*` and `test/<class>/*` (or `val/`) below `data_dir`.

    PNG and JPEG files, converted to RGB and resized (bilinear). Classes and files are
    taken in sorted order: class k is the k-th folder name. Hidden entries and other
    file types are passed over.

    Args:
        data_dir: path of the root folder.
        image_size: int or None; None takes the size of the first training image.

    Returns:
        `Source` with images uint8 [N, H, W, 3].

    Raises:
        UserError: folder missing, empty or unlike between splits; unreadable image.
    """
    if not data_dir:
        raise UserError(f"Data set 'folder' needs --data_dir, a root with {LAYOUT}.")
    root = pathlib.Path(data_dir)
    test_root = root / "test" if (root / "test").is_dir() else root / "val"
    train_files, test_files = _class_files(root / "train"), _class_files(test_root)
    if list(train_files) != list(test_files):
        differing = sorted(set(train_files) ^ set(test_files))
        raise UserError(
            f"Classes of {root / 'train'} and {test_root} must agree; only one of "
            f"them has {', '.join(differing)}."
        )
    if image_size is None:
        first = next(iter(train_files.values()))[0]
        shape = _decode(first, None).shape
    else:
        shape = (image_size, image_size, 3)
    parts = (train_files, test_files)
    count = sum(len(files) for part in parts for files in part.values())
    check_memory(str(root), count, shape)
    train, test = (_read_split(part, shape) for part in parts)
    return Source("folder", train, test, tuple(train_files))


def _class_files(split_root):
    """{class name: [files]}, both sorted, of one split folder."""
    if not split_root.is_dir():
        raise UserError(f"Expected images as {LAYOUT}, but {split_root} is no folder.")
    files = {}
    for folder in sorted(split_root.iterdir()):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        files[folder.name] = [
            path
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        ]
        if not files[folder.name]:
            raise UserError(f"Class folder {folder} holds no {', '.join(SUFFIXES)}.")
    if not files:
        raise UserError(f"Expected images as {LAYOUT}, but {split_root} has no class.")
    return files


def _read_split(class_files, shape):
    """Decodes all files into one array, several at a time."""
    paths = [path for files in class_files.values() for path in files]
    counts = [len(files) for files in class_files.values()]
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    images = np.empty((len(paths), *shape), np.uint8)

    def fill(position):
        images[position] = _decode(paths[position], (shape[1], shape[0]))

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(fill, position) for position in range(len(paths))]
        try:
            for job in jobs:
                job.result()  # in order: the error names the first bad file
        finally:
            pool.shutdown(cancel_futures=True)
    return Split(images, labels)


def _decode(path, width_height):
    """One image file as uint8 [H, W, 3], resized unless `width_height` is None."""
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            raise OSError("no regular file")
        with Image.open(path) as image:
            image = image.convert("RGB")
            if width_height is not None and image.size != width_height:
                image = image.resize(width_height, Image.BILINEAR)
            return np.asarray(image)
    except Exception as error:  # Pillow's decoders raise many unrelated types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"Cannot read image {path} ({reason}); repair or remove it."
        ) from error
