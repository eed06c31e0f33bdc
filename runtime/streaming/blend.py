"""Weighted overlaps: where tiles overlap, their planes are averaged, most weight on who sees more.

For models whose planes near a tile's border are no good, whatever the halo: those with a norm over
the whole tile, or trained without care for borders. The default copies cores, which is exact and
faster. Blending, too, gives the same bytes for any batch and order of tiles: see
:mod:`cellseg.runtime.kernels.stitch`. But it averages what tiles disagree on, so another tiling gives
another average.

::

    ├─ halo ─┼──── core ────┼─ halo ─┤
                   ├─ halo ─┼──── core ────┼─ halo ─┤     tiles overlap by two halos, as do bands:
    ───────────────┤ done                                 rows are done where the next band begins
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..geometry.coverage import Coverage
from ..geometry.tiling import Band, Region, Tile, TileGrid
from ..kernels.stitch import finish_rows, keep
from ..options import Blend
from .stitch import Stitcher

#: What the weights of a row or column sum to over the tiles that cover it.
WHOLE = 256


def blend_weights(size: int, tile: int, halo: int, kind: Blend) -> NDArray[np.uint16]:
    """Share out the rows or columns of an image among the tiles that cover them.

    Parameters
    ----------
    size
        Rows or columns of the image in pixels.
    tile, halo
        Edge of a tile and width of its halo in pixels.
    kind
        ``hann``: by sin² over the tile; ``gaussian``: by a bell with a deviation of an eighth of the
        tile, as nnU-Net (F. Isensee et al., 2021) and MONAI have it.

    Returns
    -------
    ndarray of uint16, shape (tiles, tile)
        Whole numbers that sum to :data:`WHOLE` at every pixel of the image; 0 outside the image.
    """
    place = (np.arange(tile) + 0.5) / tile
    curve = np.sin(np.pi * place) ** 2 if kind == "hann" else np.exp(-32 * (place - 0.5) ** 2)
    core = tile - 2 * halo
    starts = range(-halo, size - halo, core)
    spans = [(max(start, 0), min(start + tile, size)) for start in starts]
    total, sofar = np.zeros(size), np.zeros(size)
    for start, (first, last) in zip(starts, spans, strict=True):
        total[first:last] += curve[first - start : last - start]
    weights = np.zeros((len(spans), tile), np.uint16)
    # The running sum is rounded, not the shares: so they sum to the whole, however many there are.
    for index, (start, (first, last)) in enumerate(zip(starts, spans, strict=True)):
        inside = slice(first - start, last - start)
        before = np.rint(WHOLE * sofar[first:last] / total[first:last])
        sofar[first:last] += curve[inside]
        weights[index, inside] = np.rint(WHOLE * sofar[first:last] / total[first:last]) - before
    return weights


class Blender(Stitcher):
    """Averages the overlapping tiles of a grid, band by band.

    It holds the tiles of the bands that cover a row, usually two: (2, tiles of a band, K, T, T) bytes,
    whatever the height of the image.

    Parameters
    ----------
    grid
        The tiling.
    heads
        Planes of a tile, K.
    kind
        Which weights.
    covered
        Which pixels count; every tile is computed, for each needs its neighbours. All by default.
    """

    def __init__(self, grid: TileGrid, heads: int, kind: Blend, covered: Coverage | None = None) -> None:
        super().__init__(grid, covered)
        self._down = blend_weights(grid.height, grid.tile, grid.halo, kind)
        self._across = blend_weights(grid.width, grid.tile, grid.halo, kind)
        covers = -(-grid.tile // grid.core)  # bands that cover a row
        self._kept = np.empty(
            (min(covers, grid.n_bands), grid.n_columns, heads, grid.tile, grid.tile), np.uint8
        )
        self._sums = np.empty(grid.width, np.uint16)
        self._row = np.empty(grid.width, np.uint32)
        starts = range(-grid.halo, grid.width - grid.halo, grid.core)
        alone = [self._alone(column, grid.width, grid.n_columns) for column in range(grid.n_columns)]
        self._columns = np.array(
            [
                (x, max(x, 0), min(x + grid.tile, grid.width), *part)
                for x, part in zip(starts, alone, strict=True)
            ],
            np.int64,
        )
        edges = [0, *(edge for part in alone if part[0] < part[1] for edge in part), grid.width]
        ranges = np.array(edges, np.int64).reshape(-1, 2)
        self._shared = np.ascontiguousarray(ranges[ranges[:, 0] < ranges[:, 1]])

    @property
    def most_rows(self) -> int:
        """Rows that a band finishes at most."""
        return min(self._grid.core + self._grid.halo, self._grid.height)

    def rows(self, band: Band) -> Region:
        """Return the rows that are finished with a band: those that no later band covers."""
        grid = self._grid
        first, last = (
            min(max(index * grid.core - grid.halo, 0), grid.height) for index in (band.index, band.index + 1)
        )
        if band.index == grid.n_bands - 1:
            last = grid.height
        return Region(first, 0, last - first, grid.width)

    def begin(self, band: Band, out: NDArray[np.uint8]) -> None:
        """Nothing is known before the first tile."""

    def add(
        self, planes: NDArray[np.uint8], tiles: Sequence[Tile], band: Band, out: NDArray[np.uint8]
    ) -> None:
        """Keep the tiles, and write the rows and columns that one tile alone covers."""
        grid = self._grid
        keep(
            planes,
            np.array([tile.index % grid.n_columns for tile in tiles], np.int64),
            band.index,
            grid.core,
            grid.halo,
            grid.height,
            self._columns,
            *self._alone(band.index, grid.height, grid.n_bands),
            self._kept,
            out,
            self.rows(band).y,
        )

    def finish(self, band: Band, out: NDArray[np.uint8]) -> None:
        """Fill what is left of ``out``, once all tiles of the band were added."""
        rows, grid = self.rows(band), self._grid
        where = (self._kept, band.index, grid.core, grid.halo)
        weights = (self._columns, self._across, self._down)
        finish_rows(*where, *weights, rows.y, rows.y1, self._shared, self._sums, self._row, out)
        self._covered.clear(out, rows)

    def _alone(self, index: int, size: int, count: int) -> tuple[int, int]:
        """Return the rows or columns that only the tiles with this index cover; equal ends for none."""
        core, halo = self._grid.core, self._grid.halo
        first = index * core + halo if index else 0
        last = (index + 1) * core - halo if index < count - 1 else size
        return (first, last) if first < last else (min(first, size),) * 2
