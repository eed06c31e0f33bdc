"""Cells that were found at the model's scale, in the pixels of the slide.

A label covers exactly those slide pixels whose centre lies in one of its pixels; outlines follow the
same rule, so labels and outlines agree to the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cells import Cells, Rings, Strip


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
        whole = None if strip.whole is None else np.take(np.take(strip.whole, x, axis=1), y, axis=0)
        return Strip(top, labels, self.cells(strip.cells), whole)

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
        rings, share = self.rings(cells.rings)
        columns["area"] = np.maximum(np.rint(given["area"] * share), 1).astype(np.int64)
        whole = None
        if cells.whole is not None:
            whole, share = self.rings(cells.whole)
            area = np.rint(given["cell_area"] * share).astype(np.int64)
            columns["cell_area"] = np.maximum(area, columns["area"])
            columns["ring_area"] = columns["cell_area"] - columns["area"]
            columns["cell_perimeter"] = given["cell_perimeter"] * np.sqrt(tall * wide)
        return Cells(columns, rings.points, rings.start, whole)

    def rings(self, rings: Rings) -> tuple[Rings, NDArray[np.float64]]:
        """Return rings in pixels of the slide, and how many times larger each is there, shape (n,)."""
        tall, wide = self.full_height / self.height, self.full_width / self.width
        outline: NDArray[Any] = np.empty(rings.points.shape, np.int32)
        if min(tall, wide) >= 1:
            outline[:, 0] = edges(rings.points[:, 0], self.width, self.full_width)
            outline[:, 1] = edges(rings.points[:, 1], self.height, self.full_height)
            # Exact without holes; with holes, these keep their share.
            share = ring_areas(outline, rings.start) / np.maximum(ring_areas(rings.points, rings.start), 1)
        else:
            # Corners of smaller pixels do not all have a place on the slide's grid.
            outline = rings.points * np.array([wide, tall])
            share = np.full(len(rings), tall * wide)
        return Rings(outline, rings.start), share


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
