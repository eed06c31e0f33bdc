"""Which tiles of a grid are computed, where only a part of a slide is to be looked at.

A tile whose core lies outside the focus is not read and not inferred; its planes are zero. In the
others, planes are zero outside the focus too. So what is found depends on the focus and on the image,
not on how the image is cut into tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .focus import Focus
from .tiling import Band, Region, Tile, TileGrid, seen


@dataclass(frozen=True, slots=True)
class Coverage:
    """The part of a grid that is computed."""

    grid: TileGrid
    #: What counts, in the grid's pixels; ``None`` for everything.
    focus: Focus | None
    #: Whether each tile is computed, by index.
    wanted: NDArray[np.bool_]
    #: Pixels that count.
    pixels: int

    @classmethod
    def of(cls, grid: TileGrid, focus: Focus | None = None) -> Self:
        """Find out which tiles of a grid a focus needs."""
        wanted = np.ones(len(grid), np.bool_)
        if focus is None:
            return cls(grid, None, wanted, grid.height * grid.width)
        pixels = 0
        for band in grid:
            if not focus.touches(band.region):
                wanted[band.tiles[0].index : band.tiles[-1].index + 1] = False
                continue
            for tile in band.tiles:
                count = 0
                if focus.touches(tile.core):
                    inside = focus.inside(tile.core)
                    count = tile.core.area if inside is None else int(np.count_nonzero(inside))
                wanted[tile.index] = count > 0
                pixels += count
        return cls(grid, focus, wanted, pixels)

    def everywhere(self) -> Self:
        """Return the same with every tile computed, also those of which nothing counts."""
        return replace(self, wanted=np.ones_like(self.wanted))

    @property
    def part(self) -> float:
        """Part of the image's pixels that count, 0…1."""
        return self.pixels / (self.grid.height * self.grid.width)

    @property
    def count(self) -> int:
        """Tiles that are computed."""
        return int(np.count_nonzero(self.wanted))

    def tiles(self, band: Band) -> tuple[Tile, ...]:
        """Return the tiles of a band that are computed."""
        return band.tiles if self.focus is None else tuple(t for t in band.tiles if self.wanted[t.index])

    def columns(self, band: Band) -> NDArray[np.bool_]:
        """Return which columns of the image some tile of the band refers to, shape (width,)."""
        needed = np.zeros(self.grid.width, np.bool_)
        for tile in self.tiles(band):
            first, last = seen(tile.read.x, tile.read.x1, self.grid.width)
            needed[first:last] = True
        return needed

    def blank(self, planes: NDArray[Any], band: Band) -> None:
        """Set a band's planes to zero wherever no tile will be laid, shape (K, band.region.height, W)."""
        if self.focus is None:
            return
        for tile in band.tiles:
            if not self.wanted[tile.index]:
                planes[:, :, tile.core.x : tile.core.x1] = 0

    def cut(self, planes: NDArray[Any], tile: Tile) -> None:
        """Set a band's planes to zero in a computed tile's core wherever a pixel does not count."""
        if self.focus is None:
            return
        inside = self.focus.inside(tile.core)
        if inside is not None:
            planes[:, :, tile.core.x : tile.core.x1] *= inside

    def clear(self, planes: NDArray[Any], rows: Region) -> None:
        """Set the planes of finished rows to zero wherever a pixel does not count, (K, rows.height, W)."""
        if self.focus is None or not rows.height:
            return
        if not self.focus.touches(rows):
            planes[:] = 0
            return
        inside = self.focus.inside(rows)
        if inside is not None:
            planes *= inside
