"""From planes of tiles to planes of full-width rows: what joins tiles, and the kind that keeps cores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..geometry.coverage import Coverage
from ..geometry.tiling import Band, Region, Tile, TileGrid
from ..kernels.stitch import stitch
from ..options import Blend


class Stitcher(ABC):
    """Joins the tiles of a grid, band after band.

    For each band in turn: :meth:`begin`, :meth:`add` for its tiles in any order and number, and
    :meth:`finish`. What is written are the planes of the rows that :meth:`rows` says, uint8 (K, rows, W),
    the same array from :meth:`begin` to :meth:`finish`.

    Parameters
    ----------
    grid
        The tiling.
    covered
        Which tiles are computed and which pixels count; all by default.
    """

    def __init__(self, grid: TileGrid, covered: Coverage | None = None) -> None:
        self._grid = grid
        self._covered = covered or Coverage.of(grid)

    @property
    @abstractmethod
    def most_rows(self) -> int:
        """Rows that a band finishes at most."""

    @abstractmethod
    def rows(self, band: Band) -> Region:
        """Return the rows that are finished with a band; those of all bands in turn are the image."""

    @abstractmethod
    def begin(self, band: Band, out: NDArray[np.uint8]) -> None:
        """Fill in what is known before any tile."""

    @abstractmethod
    def add(
        self, planes: NDArray[np.uint8], tiles: Sequence[Tile], band: Band, out: NDArray[np.uint8]
    ) -> None:
        """Take a batch's first tiles.

        Parameters
        ----------
        planes
            uint8 (N, K, T, T).
        tiles
            The first ``len(tiles)`` of N, all of this band.
        band
            The band; those above are finished.
        out
            uint8 (K, rows, W).
        """

    @abstractmethod
    def finish(self, band: Band, out: NDArray[np.uint8]) -> None:
        """Fill in what is left, once all tiles of the band were added."""


class Cores(Stitcher):
    """Keeps the core of each tile: exact where the halo is wide enough, and fast."""

    @property
    def most_rows(self) -> int:
        """Rows of a band."""
        return min(self._grid.core, self._grid.height)

    def rows(self, band: Band) -> Region:
        """Return the band's own rows."""
        return band.region

    def begin(self, band: Band, out: NDArray[np.uint8]) -> None:
        """Set to zero where no tile will be laid."""
        self._covered.blank(out, band)

    def add(
        self, planes: NDArray[np.uint8], tiles: Sequence[Tile], band: Band, out: NDArray[np.uint8]
    ) -> None:
        """Copy the cores, and set to zero what does not count in them."""
        top = band.region.y
        cores = np.array([(t.core.y - top, t.core.x, t.core.height, t.core.width) for t in tiles], np.int64)
        stitch(planes, cores.reshape(-1, 4), self._grid.halo, out)
        for tile in tiles:
            self._covered.cut(out, tile)

    def finish(self, band: Band, out: NDArray[np.uint8]) -> None:
        """Nothing is left."""


def open_stitcher(grid: TileGrid, heads: int, blend: Blend, covered: Coverage) -> Stitcher:
    """Return the stitcher for a way of joining tiles of ``heads`` planes."""
    if blend == "none":
        return Cores(grid, covered)
    from .blend import Blender

    return Blender(grid, heads, blend, covered)
