"""Polygons of cells become the label image of a region; knows nothing of slides or files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellseg.runtime.errors import DataError
from cellseg.runtime.geometry.geojson import Rings
from cellseg.runtime.geometry.regions import Polygons
from cellseg.runtime.geometry.tiling import Region

#: Label of pixels of which nothing is known: ``ignore_label`` of a training's configuration.
IGNORED = 65535


def draw(
    cells: Sequence[Rings], box: Region, outline: Rings | None = None
) -> tuple[NDArray[np.uint16], int, int]:
    """Draw the label image of a region.

    Parameters
    ----------
    cells
        Polygons in pixels of the slide; pixels whose centre lies inside count.
    box
        The rectangle to draw.
    outline
        Of the region in it; pixels outside become :data:`IGNORED`.

    Returns
    -------
    labels : ndarray of uint16, shape (box.height, box.width)
    count : int
        Number of cells in it.
    overlap : int
        Pixels that several cells claim.
    """
    labels = np.zeros((box.height, box.width), np.uint16)
    times = np.zeros(labels.shape, np.uint8)
    # The smallest come last, and keep what they share: a nucleus drawn over its own clump stays whole.
    order = sorted(range(len(cells)), key=lambda number: -_extent(cells[number]))
    count = 0
    for number in order:
        part = shared_box(cells[number], box)
        if part is None:
            continue
        inside = Polygons([cells[number]]).inside(part)
        mask = np.ones((part.height, part.width), np.bool_) if inside is None else inside
        if not mask.any():
            continue
        count += 1
        if count >= IGNORED:
            raise DataError(
                f"a region of {box.height}×{box.width} pixels holds over {IGNORED - 1:,} cells; cut it up"
            )
        at = slice(part.y - box.y, part.y1 - box.y), slice(part.x - box.x, part.x1 - box.x)
        labels[at][mask] = count
        times[at] += mask & (times[at] < 255)
    if outline is not None:
        inside = Polygons([outline]).inside(box)
        if inside is not None:
            labels[~inside], times[~inside] = IGNORED, 0
    found = np.unique(labels[(labels > 0) & (labels < IGNORED)])
    return labels, len(found), int((times > 1).sum())


def shared_box(rings: Rings, box: Region) -> Region | None:
    """Return the part of a rectangle that a polygon's own rectangle covers; None where they do not meet."""
    x0, y0 = np.maximum(np.floor(rings[0].min(axis=0)).astype(int), (box.x, box.y))
    x1, y1 = np.minimum(np.ceil(rings[0].max(axis=0)).astype(int), (box.x1, box.y1))
    return Region(int(y0), int(x0), int(y1 - y0), int(x1 - x0)) if y0 < y1 and x0 < x1 else None


def _extent(rings: Rings) -> float:
    """Return the area of a polygon's outer ring (shoelace formula)."""
    x, y = rings[0].T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
