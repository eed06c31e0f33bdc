"""Cells that were found at the model's scale, in the pixels of the slide.

A label covers exactly those slide pixels whose centre lies in one of its pixels; outlines follow the
same rule, so labels and outlines agree to the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import Cells, Strip


@dataclass(frozen=True, slots=True)
class FullResolution:
    """The way from a rescaled picture back to the slide."""

    #: Size of the rescaled picture in pixels.
    height: int
    width: int
    #: Size of the slide in pixels.
    full_height: int
    full_width: int

    def strip(self, strip: Strip) -> Strip:
        """Return a strip of the rescaled picture as a strip of the slide.

        Strips of the rescaled picture that follow on and cover it become such strips of the slide.
        """
        rows, _ = strip.labels.shape
        top, end = (
            int(edges(np.array(row), self.height, self.full_height)) for row in (strip.y, strip.y + rows)
        )
        y = sources(np.arange(top, end), self.height, self.full_height) - strip.y
        x = sources(np.arange(self.full_width), self.width, self.full_width)
        # By rows first: whole rows are copied at once.
        labels = np.take(np.take(strip.labels, x, axis=1), y, axis=0)
        return Strip(top, labels, self.cells(strip.cells))

    def cells(self, cells: Cells) -> Cells:
        """Return cells measured in the rescaled picture in pixels of the slide."""
        tall, wide = self.full_height / self.height, self.full_width / self.width
        given: dict[str, NDArray[Any]] = dict(cells.columns)
        columns = dict(given)
        columns["centroid_y"] = (given["centroid_y"] + 0.5) * tall - 0.5
        columns["centroid_x"] = (given["centroid_x"] + 0.5) * wide - 0.5
        for name in ("y0", "y1"):
            columns[name] = edges(given[name], self.height, self.full_height).astype(np.int32)
        for name in ("x0", "x1"):
            columns[name] = edges(given[name], self.width, self.full_width).astype(np.int32)
        columns["perimeter"] = given["perimeter"] * np.sqrt(tall * wide)
        outline: NDArray[Any] = np.empty(cells.outline.shape, np.int32)
        if min(tall, wide) >= 1:
            outline[:, 0] = edges(cells.outline[:, 0], self.width, self.full_width)
            outline[:, 1] = edges(cells.outline[:, 1], self.height, self.full_height)
            # Exact without holes; with holes, these keep their share.
            share = ring_areas(outline, cells.outline_start) / np.maximum(
                ring_areas(cells.outline, cells.outline_start), 1
            )
        else:
            # Corners of smaller pixels do not all have a place on the slide's grid.
            outline = cells.outline * np.array([wide, tall])
            share = np.full(len(cells), tall * wide)
        columns["area"] = np.maximum(np.rint(given["area"] * share), 1).astype(np.int64)
        return Cells(columns, outline, cells.outline_start)


def edges(k: NDArray[Any], size: int, full: int) -> NDArray[np.int64]:
    """Return where the line before pixel ``k`` of a rescaled axis lies on the full axis.

    That is the first full pixel whose centre is not before the line: the smallest y with
    ``(y + ½) · size/full ≥ k``, in integers.
    """
    twice = 2 * full * np.asarray(k, np.int64) - size
    return np.maximum(-(-twice // (2 * size)), 0)


def sources(y: NDArray[Any], size: int, full: int) -> NDArray[np.int64]:
    """Return the pixel of the rescaled axis in which the centre of full pixel ``y`` lies."""
    return np.asarray((2 * np.asarray(y, np.int64) + 1) * size // (2 * full))


def ring_areas(outline: NDArray[Any], start: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the area inside each closed ring (the shoelace formula), shape (n,)."""
    if len(start) < 2:
        return np.empty(0)
    following = np.arange(1, len(outline) + 1)
    following[start[1:] - 1] = start[:-1]
    x, y = outline[:, 0].astype(np.float64), outline[:, 1].astype(np.float64)
    cross = x * y[following] - x[following] * y
    return np.abs(np.add.reduceat(cross, start[:-1])) / 2
