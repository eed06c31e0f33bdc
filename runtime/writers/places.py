"""Where on a slide a look is worth it: typical, crowded and uncertain places, chosen from counts on a grid.

What is chosen depends on the cells alone, not on how the image was cut into tiles or strips: all that is
counted are whole numbers. This module knows nothing of pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..geometry.tiling import Region
from ..instances import Cells

#: Edge of a square of the grid in pixels, and squares along the longer edge of the image at most.
SQUARE, MOST_SQUARES = 64, 1024
#: Edge of a place in diameters of the median cell, and in pixels at most.
DIAMETERS, MOST_PIXELS = 12, 512
#: The finest score that is told apart.
SCORE_PARTS = 10_000
#: Fewest cells of an uncertain place, and part of those of a typical one that it must have.
FEWEST, FEWEST_PART = 3, 0.25
#: A mean score so far from the median counts as much as e times the median's cells.
SCORE_SPREAD = 0.1
#: Kinds of places with what they are called, and how many of each are wanted.
KINDS = ("typical", "crowded", "least certain")
OF_EACH = 2


@dataclass(frozen=True, slots=True)
class Place:
    """A part of the image to be shown at full resolution."""

    #: One of :data:`KINDS`.
    kind: str
    region: Region
    #: Cells whose centroid lies inside, and the mean of their scores.
    cells: int
    score: float


class Places:
    """Counts cells and sums up their scores on a grid.

    Parameters
    ----------
    height, width
        Size of the image in pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        self._size = height, width
        #: Edge of a square in pixels.
        self.square = max(SQUARE, math.ceil(max(height, width) / MOST_SQUARES))
        shape = -(-height // self.square), -(-width // self.square)
        self._cells, self._scores = (np.zeros(shape, np.int64) for _ in range(2))

    def add(self, cells: Cells) -> None:
        """Count some cells."""
        if not len(cells):
            return
        rows, columns = self._cells.shape
        y = np.clip(cells.columns["centroid_y"] // self.square, 0, rows - 1).astype(np.int64)
        x = np.clip(cells.columns["centroid_x"] // self.square, 0, columns - 1).astype(np.int64)
        at = y * columns + x
        first = int(at.min())  # strips are a small part of the image
        scores = np.nan_to_num(cells.columns["score"].astype(np.float64))
        parts = np.bincount(at - first, weights=np.rint(scores * SCORE_PARTS)).astype(np.int64)
        self._cells.reshape(-1)[first : first + len(parts)] += np.bincount(at - first)
        self._scores.reshape(-1)[first : first + len(parts)] += parts

    def chosen(self, diameter: float) -> list[Place]:
        """Choose the places: :data:`OF_EACH` of each kind where there are enough, in turn, none twice.

        Parameters
        ----------
        diameter
            Of the median cell, in pixels.
        """
        if not self._cells.any():
            return []
        most = max(2, MOST_PIXELS // self.square)
        edge = min(max(2, math.ceil(DIAMETERS * diameter / self.square)), most)
        tall, wide = (
            max(1, min(edge, size // self.square)) for size in self._size
        )  # a thin image is shown across
        cells, scores = _sums(self._cells, tall, wide), _sums(self._scores, tall, wide)
        means = scores / np.maximum(cells, 1) / SCORE_PARTS
        orders = _orders(cells, means)
        free = cells > 0
        taken: list[Place] = []
        for _ in range(OF_EACH):
            for kind, order in zip(KINDS, orders, strict=True):
                open_ = np.where(free, order, np.inf)
                y, x = np.unravel_index(int(np.argmin(open_)), open_.shape)
                if not np.isfinite(open_[y, x]):
                    continue
                region = self._region(int(y), int(x), tall, wide)
                taken.append(Place(kind, region, int(cells[y, x]), float(means[y, x])))
                free[max(0, y - tall + 1) : y + tall, max(0, x - wide + 1) : x + wide] = False
        return taken

    def _region(self, y: int, x: int, tall: int, wide: int) -> Region:
        """Return a window of squares in pixels, cut at the image's edge."""
        height, width = self._size
        top, left = y * self.square, x * self.square
        return Region(top, left, min(tall * self.square, height - top), min(wide * self.square, width - left))


def _orders(
    cells: npt.NDArray[np.int64], means: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], ...]:
    """Return for each kind a number a window, the lowest for the best; infinite where it is none."""
    usual, usual_score = _median(cells, cells), _median(means, cells)
    typical = np.abs(np.log(np.maximum(cells, 0.5) / usual)) + np.abs(means - usual_score) / SCORE_SPREAD
    enough = cells >= max(FEWEST, FEWEST_PART * usual)
    return typical, -cells.astype(np.float64), np.where(enough, means, np.inf)


def _sums(grid: npt.NDArray[np.int64], tall: int, wide: int) -> npt.NDArray[np.int64]:
    """Return the sum of every window of squares that lies inside of the grid."""
    whole = np.pad(grid, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return np.asarray(
        whole[tall:, wide:] - whole[:-tall, wide:] - whole[tall:, :-wide] + whole[:-tall, :-wide]
    )


def _median(values: npt.NDArray[np.generic], weights: npt.NDArray[np.int64]) -> float:
    """Return the value that half of the cells have at most, each window counting as its cells do."""
    flat, counts = values.reshape(-1), weights.reshape(-1)
    order = np.argsort(flat, kind="stable")
    running = np.cumsum(counts[order])
    return float(flat[order[int(np.searchsorted(running, (running[-1] + 1) // 2))]])
