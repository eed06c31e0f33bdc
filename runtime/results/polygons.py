"""Cells as polygons with their holes, in pixels of the image: x to the right and y down from its corner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..instances.full_resolution import ring_areas
from ..instances.outlines import outlines, renumbered

if TYPE_CHECKING:
    from .result import Result

#: A ring that is larger than its cell by more than rounding has a hole in it.
ROUNDING = 0.75


def polygons(result: Result) -> NDArray[Any]:
    """Return one valid polygon a cell, or several where its parts touch at a corner alone.

    Outlines are rings around cells; what is background inside of one, or another cell, is cut out.

    Returns
    -------
    ndarray of shapely geometries, shape (n,)
    """
    import shapely

    cells = result.cells
    if not len(cells):
        return np.empty(0, object)
    owner = np.repeat(np.arange(len(cells)), np.diff(cells.outline_start))
    rings = shapely.linearrings(np.asarray(cells.outline, np.float64), indices=owner)
    made: NDArray[Any] = shapely.polygons(rings)
    touching = ~shapely.is_valid(made)
    made[touching] = shapely.make_valid(made[touching], method="structure")
    larger = ring_areas(cells.outline, cells.outline_start) - np.asarray(cells.columns["area"], np.float64)
    for at in np.flatnonzero(larger > ROUNDING):
        holes = shapely.polygons([shapely.linearrings(ring) for ring in _holes(result, int(at))])
        made[at] = shapely.difference(made[at], shapely.union_all(holes))
    return made


def _holes(result: Result, at: int) -> list[NDArray[np.float64]]:
    """Return the rings around what lies inside a cell and is not of it."""
    columns = result.cells.columns
    y0, x0, y1, x1 = (int(columns[name][at]) for name in ("y0", "x0", "y1", "x1"))
    inside = np.asarray(result.levels[0][y0:y1, x0:x1]) == columns["label"][at]
    # Background that meets the frame around the box is outside of the cell.
    rest = np.pad(~inside, 1, constant_values=True).astype(np.uint8)
    _, parts = cv2.connectedComponents(rest, connectivity=4, ltype=cv2.CV_32S)
    holes = np.where(parts == parts[0, 0], 0, parts)[1:-1, 1:-1].astype(np.int32)
    return [np.add(ring, (x0, y0), dtype=np.float64) for ring in outlines(renumbered(holes))]
