"""Cells by regions of interest, counted as they come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.named import NamedRegions
from ..instances import Strip
from ..intensity.classes import Classes


class RegionCounter:
    """Gives every cell of a strip its region, and counts; a cell lies where its centroid does.

    Parameters
    ----------
    regions
        In the pixels of the strips.
    classes
        How cells are told positive; their class is counted too.

    Attributes
    ----------
    cells
        Of each region; a cell in two regions counts in both.
    by_class
        Of each region and class, shape (regions, classes).
    outside
        Cells in no region: at an edge, of which enough lies inside, but not the centroid.
    overlap
        Whether any cell lies in more than one.
    """

    def __init__(self, regions: NamedRegions, classes: Classes | None = None) -> None:
        self._regions = regions
        self.by_class = np.zeros((len(regions.names), 0 if classes is None else len(classes.names)), np.int64)
        self.cells = np.zeros(len(regions.names), np.int64)
        self.outside, self.overlap = 0, False

    def __call__(self, strip: Strip) -> Strip:
        """Return a strip with the column ``roi``."""
        # The centre of a pixel is its index to a cell, half a pixel more to a polygon.
        y, x = (self._centre(strip, axis) for axis in "yx")
        innermost, counts = self._regions.assign(y, x)
        self.cells += counts
        for number in range(self.by_class.shape[1]):
            own = strip.cells.columns["class"] == number
            self.by_class[:, number] += self._regions.assign(y[own], x[own])[1]
        outside = int(np.count_nonzero(innermost < 0))
        self.outside += outside
        self.overlap |= int(counts.sum()) > len(y) - outside
        return replace(strip, cells=strip.cells.with_column("roi", innermost))

    @staticmethod
    def _centre(strip: Strip, axis: str) -> NDArray[Any]:
        return np.asarray(strip.cells.columns[f"centroid_{axis}"], np.float64) + 0.5
