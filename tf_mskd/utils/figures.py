"""Figures: axes side by side, or rows of images, in one PNG."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tf_mskd.utils import files

MOST_INSIDE = 4  # names of a legend within the axes
LETTERS = 90  # that a line of a legend below them holds
COLUMN = {  # where the name of a column stands: over its first image
    **{"xycoords": "axes fraction", "textcoords": "offset points"},
    **{"ha": "center", "fontsize": 8},
}


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
        list of matplotlib axes. The legend of each shows what was drawn with a label,
        below the axes if that is much.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, count, figsize=size, squeeze=False)
    try:
        yield list(axes[0])
        for panel in axes[0]:
            panel.grid(alpha=0.3, which="both")
            _legend(panel)
        figure.tight_layout()
        for panel in axes[0]:
            if legend := panel.get_legend():
                legend.set_in_layout(True)
        with files.replacing(path) as temporary:
            figure.savefig(temporary, dpi=110, bbox_inches="tight")
    finally:
        pyplot.close(figure)


def _legend(panel):
    """Draws the legend, if long below the axes: the figure grows by it, not they."""
    labels = panel.get_legend_handles_labels()[1]
    if len(labels) > MOST_INSIDE:
        columns = min(4, max(1, LETTERS // (6 + max(map(len, labels)))))
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12)}
        panel.legend(fontsize=8, ncols=columns, **below).set_in_layout(False)
    elif labels:
        panel.legend(fontsize=8)


def image_grid(
    path: str | os.PathLike,
    rows: Sequence[Mapping[str, Any]],
    captions: Sequence[Mapping[str, tuple[str, str]]] = (),
) -> None:
    """Writes images in rows, the names of the columns above, into one PNG.

    Args:
        path: path of the PNG, replaced atomically.
        rows: one or more dicts, name -> array [H, W, 3] or [H, W, 1]; all of the same
            names.
        captions: for each row a dict, name -> (text, colour), what stands above each
            image; or none.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(rows[0])
    size = 1.6 * len(names), (1.9 if captions else 1.7) * len(rows)
    figure, axes = pyplot.subplots(len(rows), len(names), figsize=size, squeeze=False)
    try:
        for places, row in zip(axes, rows, strict=True):
            for panel, name in zip(places, names, strict=True):
                panel.imshow(row[name], cmap="gray", interpolation="nearest")
                panel.set_axis_off()
        for panel, name in zip(axes[0], names, strict=True):
            above = (0, 18 if captions else 6)
            panel.annotate(name, xy=(0.5, 1), xytext=above, **COLUMN)
        for places, texts in zip(axes, captions, strict=False):
            for panel, name in zip(places, names, strict=True):
                text, colour = texts[name]
                panel.set_title(text, fontsize=8, color=colour, parse_math=False)
        figure.tight_layout(pad=0.3)
        with files.replacing(path) as temporary:
            figure.savefig(temporary, dpi=110)
    finally:
        pyplot.close(figure)
