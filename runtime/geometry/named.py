"""Regions of interest by name: how large each is, and which points lie in it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from .regions import Polygons
from .tiling import Region

#: Edge of the squares in which pixels are counted.
_SQUARE = 512


class NamedRegions:
    """Polygons of one name are one region; regions may overlap.

    Parameters
    ----------
    polygons
        In pixels of the image.
    height, width
        Its size.

    Attributes
    ----------
    names
        In the order of the polygons.
    parts
        The polygons of each.
    pixels
        Pixels of the image whose centre lies in each.
    """

    def __init__(self, polygons: Polygons, height: int, width: int) -> None:
        own: dict[str, list[int]] = {}
        for number, name in enumerate(polygons.names):
            own.setdefault(name, []).append(number)
        self.names = tuple(own)
        self.parts = tuple(Polygons([polygons.polygons[n] for n in numbers]) for numbers in own.values())
        self.pixels = tuple(count_pixels(part, height, width) for part in self.parts)
        self._boxes = np.array([part.box for part in self.parts])
        # From the largest to the smallest.
        self._inwards = np.argsort(-np.array(self.pixels), kind="stable")

    def assign(
        self, y: npt.NDArray[Any], x: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Find the regions of some points.

        Parameters
        ----------
        y, x
            Shape (n,): from the image's corner, in pixels.

        Returns
        -------
        innermost
            Shape (n,): the number of the smallest region that holds each, -1 where none does.
        counts
            How many points each region holds: one in two regions counts in both.
        """
        innermost, counts = np.full(len(y), -1, np.int32), np.zeros(len(self.names), np.int64)
        if not len(y):
            return innermost, counts
        y0, x0, y1, x1 = self._boxes.T
        near = (y0 <= y.max()) & (y1 >= y.min()) & (x0 <= x.max()) & (x1 >= x.min())
        for number in self._inwards[near[self._inwards]]:
            held = self.parts[number].holding(y, x)
            innermost[held] = number
            counts[number] = np.count_nonzero(held)
        return innermost, counts


def count_pixels(polygons: Polygons, height: int, width: int) -> int:
    """Return how many pixels of an image of some size have their centre in any of some polygons."""
    if not polygons.touches(Region(0, 0, height, width)):
        return 0
    box = polygons.within(height, width)
    count = 0
    for y, x in itertools.product(range(box.y, box.y1, _SQUARE), range(box.x, box.x1, _SQUARE)):
        square = Region(y, x, min(_SQUARE, box.y1 - y), min(_SQUARE, box.x1 - x))
        if polygons.touches(square):
            inside = polygons.inside(square)
            count += square.area if inside is None else int(np.count_nonzero(inside))
    return count
