"""Images that stay in their files and are decoded when a batch asks for them."""

import functools
import io
import sys
import threading
import typing

import numpy as np

from tf_mskd.data.arrays import Split
from tf_mskd.data.decode import fit, in_parallel, read_image
from tf_mskd.data.reading import Reading
from tf_mskd.data.window import read_window
from tf_mskd.utils.errors import UserError

BATCH = 1024  # images; more are no batch and are decoded in threads


class Index(typing.Protocol):
    """Encoded images by position, such as `FileIndex`."""

    def __len__(self) -> int:
        """How many there are."""

    def name(self, position: int) -> str:
        """What one is called in a message."""

    def read(self, position: int) -> bytes:
        """The content of its file."""


class _Bad(Exception):
    """A file is there and holds no image."""


class StoredImages:
    """The images of a split as an array that holds none of them.

    Indexing decodes, several images at a time: `images[ids]` are the pixels that
    reading the whole split into memory would give, as `decode.fit` makes them.

    Args:
        index: `Index` of N images.
        labels: int [N]; an image that cannot be decoded is replaced by one of its own.
        image_shape: (H, W, C) of every image.
        reading: `Reading`. With `skip_bad` the next good image of the class, in the
            order of the split and round its end, takes the place of one that cannot be
            decoded; else that is an error.

    Attributes:
        shape: (N, H, W, C).
        dtype: uint8.
        bad: dict, position of a replaced image -> position of what took its place.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        index: Index,
        labels: np.ndarray,
        image_shape: tuple[int, ...],
        reading: Reading,
    ):
        self._index, self._labels, self._reading = index, labels, reading
        self._positions = np.arange(len(index))
        self._lock = threading.Lock()
        self.bad: dict[int, int] = {}
        self.shape = (len(index), *image_shape)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, which: typing.Any) -> np.ndarray:
        """Returns uint8 [..., H, W, C], as a NumPy array of the images would.

        Raises:
            UserError: for a file that is gone or has changed, or one that is no image,
                unless those are skipped.
        """
        positions = self._positions[which]
        images = self._images(np.ravel(positions), lambda row, file: self._whole(file))
        return images.reshape(*np.shape(positions), *self.shape[1:])

    def windows(self, index: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Returns a random window of each file, resized: uint8 [B, H, W, C].

        Args:
            index: int [B], positions.
            draws: float [B, 4], see `window.read_window`.

        Raises:
            UserError: as indexing does.
        """
        shape = self.shape[1:]
        return self._images(
            index, lambda row, file: read_window(file, draws[row], shape)
        )

    def _images(self, positions, decode):
        images = np.empty((len(positions), *self.shape[1:]), np.uint8)

        def work(row):
            images[row] = self._image(
                int(positions[row]), functools.partial(decode, row)
            )

        if len(positions) > BATCH:
            in_parallel(work, len(positions))
        else:  # batches are read side by side by the pipeline
            for row in range(len(positions)):
                work(row)
        return images

    def _whole(self, content):
        height, width, channels = self.shape[1:]
        picture = read_image(io.BytesIO(content), channels)
        resize, centre = self._reading.resize, self._reading.centre
        return fit(picture, height, width, resize, centre=centre)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        images = self[:]
        return images if dtype is None else images.astype(dtype)

    def _image(self, position, decode):
        with self._lock:
            position = self.bad.get(position, position)
        try:
            return self._decoded(position, decode)
        except _Bad as error:
            if not self._reading.skip_bad:
                raise UserError(
                    f"Cannot read image {self._index.name(position)} ({error}); repair "
                    "or remove it, or set --bad_images=skip."
                ) from error
            return self._instead(position, decode, error)

    def _decoded(self, position, decode):
        content = self._index.read(position)
        try:
            return decode(content)
        except ValueError as error:
            raise _Bad(str(error)) from error

    def _instead(self, position, decode, reason):
        """The next good image of the class, which from now on takes its place."""
        of_class = np.flatnonzero(self._labels == self._labels[position])
        start = int(np.searchsorted(of_class, position))
        for other in np.roll(of_class, -start)[1:]:
            try:
                image = self._decoded(int(other), decode)
            except _Bad:
                continue
            self._note(position, int(other), reason)
            return image
        raise UserError(
            f"Cannot read image {self._index.name(position)} ({reason}), nor any other "
            "of its class: repair the folder."
        )

    def _note(self, position, other, reason):
        with self._lock:
            if position in self.bad:
                return
            self.bad[position] = other
            count = len(self.bad)
        bad, good = self._index.name(position), self._index.name(other)
        told = f"{bad} cannot be read ({reason}): {good} takes its place"
        print(f"{told} ({count} so far)", file=sys.stderr, flush=True)


def decoded(split: Split) -> Split:
    """Returns a split of `StoredImages` with all of them in memory."""
    return Split(np.asarray(split.images), split.targets)
