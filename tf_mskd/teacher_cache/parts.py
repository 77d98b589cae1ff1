"""Parts of the training images that several processes fill a teacher cache with."""

import dataclasses
import re
import typing

from tf_mskd.utils.errors import UserError

if typing.TYPE_CHECKING:  # the command reads its flag without NumPy
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Part:
    """One of several equal ranges of the training images, in every view.

    Args:
        number: int in [1, count].
        count: int > 0, parts of all images.

    Example:
        >>> print(Part(2, 4), Part(2, 4).lock)
        2/4 lock_2_of_4
    """

    number: int
    count: int

    def __str__(self):
        """The form of the flag."""
        return f"{self.number}/{self.count}"

    @property
    def lock(self) -> str:
        """Name of the lock file of this range."""
        return f"lock_{self.number}_of_{self.count}"

    @property
    def siblings(self) -> list["Part"]:
        """All parts of the same division, in order."""
        return [Part(number, self.count) for number in range(1, self.count + 1)]

    def of(self, ids: "np.ndarray", batch_size: int) -> "np.ndarray":
        """Returns the positions of this part; it begins where a batch of all begins.

        The teacher then sees the batches of one fill of all images, so that its outputs
        have the same bits.

        Args:
            ids: int64 [n], positions of all training images, in the order of the fill.
            batch_size: int > 0, images of a batch.

        Returns:
            int64 [m]; the parts of a division are disjoint, and together `ids`.

        Raises:
            UserError: if there are fewer batches than parts.

        Example:
            >>> import numpy as np
            >>> [part.of(np.arange(7), 2).tolist() for part in Part(1, 3).siblings]
            [[0, 1], [2, 3], [4, 5, 6]]
        """
        batches = -(-len(ids) // batch_size)
        if self.count > batches:
            raise UserError(
                f"--part={self} needs at least {self.count} batches, the {len(ids)} "
                f"training images make {batches} of --batch_size={batch_size}: ask for "
                "fewer parts."
            )
        start, stop = (
            batch_size * (batches * k // self.count)
            for k in (self.number - 1, self.number)
        )
        return ids[start:stop]


def read_part(text: str) -> Part | None:
    """Reads "2/4", the second of four parts; None of an empty text.

    Raises:
        UserError: if the text is no part.

    Example:
        >>> read_part("2/4")
        Part(number=2, count=4)
    """
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if match and 1 <= int(match[1]) <= int(match[2]):
        return Part(int(match[1]), int(match[2]))
    raise UserError(
        f"--part must be K/N with 1 <= K <= N, such as 2/4 for the second of four parts"
        f", got {text!r}."
    )
