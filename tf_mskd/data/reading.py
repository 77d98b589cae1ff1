"""How image files become the images of a split."""

import dataclasses
import os

from tf_mskd.data.arrays import fits_memory
from tf_mskd.utils.choices import MEMORIES, RESIZES
from tf_mskd.utils.errors import UserError, unknown_name


@dataclasses.dataclass(frozen=True)
class Reading:
    """Settings of reading images that are each of one class.

    Args:
        resize: "crop" or "squeeze", see `decode.fit`.
        centre: float in (0, 1], part of each side that is kept, see `decode.fit`.
        memory: "decoded" reads all pixels at once, "stream" leaves them in their files
            (`StoredImages`), "auto" decodes what takes at most 60 % of the free memory.
        skip_bad: bool, whether another image of the class takes the place of one that
            cannot be decoded, see `StoredImages`.
        index_dir: path of a folder that keeps what was found by looking through files
            of records, see `index_file.kept`, or None.

    Raises:
        UserError: for a value out of range.
    """

    resize: str = "crop"
    centre: float = 1.0
    memory: str = "decoded"
    skip_bad: bool = False
    index_dir: str | os.PathLike | None = None

    def __post_init__(self):
        if self.resize not in RESIZES:
            raise unknown_name("resize", self.resize, RESIZES)
        if self.memory not in MEMORIES:
            raise unknown_name("memory", self.memory, MEMORIES)
        if not 0 < self.centre <= 1:
            raise UserError(f"centre_crop must be in (0, 1], got {self.centre!r}.")

    @property
    def is_plain(self) -> bool:
        """Whether any set of images can be read so."""
        return self.memory != "stream" and not self.skip_bad and self.centre == 1

    def stays_in_files(self, num_images: int, image_shape: tuple[int, ...]) -> bool:
        """Returns whether so many images, (H, W, C) each, are left in their files."""
        return self.memory == "stream" or (
            self.memory == "auto" and not fits_memory(num_images, image_shape)
        )


AS_THEY_ARE = Reading()
