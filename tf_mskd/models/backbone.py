"""What describes a network family: its stem and its stages."""

import dataclasses
import typing

Norm = typing.Callable[[str], typing.Any]  # layer name -> batch norm layer


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a backbone; a head may be attached to its output map.

    Attributes:
        width: int, channels of the stage's output map.
        size: (int, int), height and width of that map.
        build: callable(x, prefix) -> dict of tensors by output name, `feature_k` always
            among them. Every call makes fresh layers, all named `prefix + name`; None
            where a stage cannot be made afresh.
    """

    width: int
    size: tuple[int, int]
    build: typing.Callable | None = None


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network without its exits.

    Attributes:
        stem: callable(x) -> tensor, the layers before stage 1.
        stages: tuple of `Stage`, shallow to deep.
        close: callable(x, name) -> tensor, or None. In a pre-activation network the
            batch norm that a raw feature map [B, H, W, C] needs before ReLU.
        embedding_dropout: bool, whether `dropout` belongs before the dense layers of
            the exits (else the stages have used it).
    """

    stem: typing.Callable
    stages: tuple
    close: typing.Callable | None = None
    embedding_dropout: bool = True

    def of_one_size(self, k: int) -> "Backbone":
        """Returns it for a head that keeps the size of the map of stage k."""
        size = self.stages[k - 1].size
        stages = tuple(dataclasses.replace(s, size=size) for s in self.stages)
        return dataclasses.replace(self, stages=stages)


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """Size of a map after a padded 3x3 convolution of stride 2: each side / 2, up."""
    height, width = size
    return (height + 1) // 2, (width + 1) // 2
