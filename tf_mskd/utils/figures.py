"""Figures: axes side by side in one PNG."""

import contextlib
import os
from collections.abc import Iterator

from tf_mskd.utils import files


@contextlib.contextmanager
def panels(
    path: str | os.PathLike, count: int, size: tuple[float, float]
) -> Iterator[list]:
    """Yields axes side by side to draw in, then writes them with grids and legends.

    Args:
        path: path of the PNG, replaced atomically.
        count: int, number of axes.
        size: (width, height) of the figure in inches.

    Yields:
        list of matplotlib axes. What is drawn in them needs labels for the legend.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, count, figsize=size, squeeze=False)
    try:
        yield list(axes[0])
        for panel in axes[0]:
            panel.grid(alpha=0.3, which="both")
            panel.legend(fontsize=8)
        figure.tight_layout()
        with files.replacing(path) as temporary:
            figure.savefig(temporary, dpi=110)
    finally:
        pyplot.close(figure)
