"""From rows of a slide to batches of tiles.

This is the checked, Python-side face of the gather kernel, and the buffers before it. Memory is a few
bands of full-width rows, whatever the height of the slide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.tiling import Band, Region, Tile, TileGrid
from ..intensity.channels import ChannelChoice
from ..intensity.normalization import Normalization
from ..kernels.gather import gather
from ..readers import SlideReader

#: Rows are asked of the reader in pieces of about this many bytes, which bounds what it allocates.
READ_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class BandRows:
    """The raw rows that a band's tiles refer to."""

    band: Band
    #: Shape (band.rows.height, W, C).
    rows: NDArray[Any]
    #: The buffer that ``rows`` is the beginning of.
    buffer: NDArray[Any]

    @property
    def core(self) -> NDArray[Any]:
        """The band's own rows, shape (band.region.height, W, C)."""
        return self.part(self.band.region)

    def part(self, rows: Region) -> NDArray[Any]:
        """Return some of the rows by their place in the image, shape (rows.height, W, C)."""
        start = rows.y - self.band.rows.y
        return self.rows[start : start + rows.height]


def row_buffer(reader: SlideReader, grid: TileGrid) -> NDArray[Any]:
    """Return an empty buffer for the rows of any band."""
    height = min(grid.tile + 1, grid.height)
    return np.empty((height, grid.width, reader.channels), reader.dtype)


def read_bands(
    reader: SlideReader,
    grid: TileGrid,
    take: Callable[[], NDArray[Any]],
    columns: Callable[[Band], NDArray[np.bool_]] | None = None,
    bands: range | None = None,
) -> Iterator[BandRows]:
    """Read a slide from top to bottom, each pixel once.

    Parameters
    ----------
    reader
        The slide.
    grid
        Its tiling.
    take
        Returns a free buffer made by :func:`row_buffer`. A buffer may be taken again as soon as the
        band that used it is done with: rows shared with the next band are copied when that is read,
        which is right even where it is the same buffer.
    columns
        Returns which columns a band needs, shape (W,); those that no band needs are zero. All by
        default.
    bands
        Numbers of the bands to read, which follow one another; all by default.

    Raises
    ------
    ImageError
        The slide is damaged, or the reader gave something else than it promised.
    """
    numbers = range(grid.n_bands) if bands is None else bands
    held = Region(grid.band(numbers[0]).rows.y, 0, 0, grid.width)
    old: NDArray[Any] | None = None
    for band in map(grid.band, numbers):
        buffer = take()
        shared = held.y1 - band.rows.y
        if old is not None and shared > 0:
            buffer[:shared] = old[band.rows.y - held.y : held.y1 - held.y]
        spans = [(0, grid.width)] if columns is None else _spans(grid, band, columns)
        fill(reader, band.rows.y + shared, band.rows.y1, buffer[shared:], spans)
        held, old = band.rows, buffer
        yield BandRows(band, buffer[: band.rows.height], buffer)


def _spans(grid: TileGrid, band: Band, columns: Callable[[Band], NDArray[np.bool_]]) -> list[tuple[int, int]]:
    """Return the columns, as (first, last + 1), that a band or one that shares rows with it needs."""
    needed = columns(band)
    for index in range(band.index + 1, grid.n_bands):
        other = grid.band(index)
        if other.rows.y >= band.rows.y1:
            break
        needed = needed | columns(other)
    ends = np.flatnonzero(np.diff(needed.astype(np.int8), prepend=0, append=0))
    return [(int(start), int(stop)) for start, stop in ends.reshape(-1, 2)]


def fill(reader: SlideReader, y: int, y1: int, out: NDArray[Any], spans: Sequence[tuple[int, int]]) -> None:
    """Read rows ``[y, y1)`` of some columns into the beginning of ``out``; the others are zero."""
    step = max(1, READ_BYTES // max(1, out[:1].nbytes))
    if spans != [(0, reader.width)]:
        out[: y1 - y] = 0
    for start in range(y, y1, step):
        stop = min(y1, start + step)
        for x, x1 in spans:
            reader.read_into(Region(start, x, stop - start, x1 - x), out[start - y : stop - y, x:x1])


class TileGatherer:
    """Lays tiles into batches.

    Parameters
    ----------
    grid
        The tiling.
    choice
        Which channels the model sees.
    mapping
        The slide's mapping to bytes.
    """

    def __init__(self, grid: TileGrid, choice: ChannelChoice, mapping: Normalization) -> None:
        self._grid = grid
        self._pick = np.array(choice.pick, np.int32)
        self._grey = choice.grey
        whole = np.dtype(mapping.dtype).kind == "u"
        self._fixed = mapping.fixed_point if whole else (0, 0, 0, 0)
        self._float = float(mapping.offset), float(mapping.scale)
        self._dtype = np.dtype(mapping.dtype)

    def __call__(self, source: BandRows, tiles: Sequence[Tile], batch: NDArray[np.uint8]) -> None:
        """Fill the first ``len(tiles)`` tiles of ``batch``, uint8 (N, T, T, 1 or 3), from a band's rows."""
        if source.rows.dtype != self._dtype:
            raise ValueError(f"rows of {source.rows.dtype}, but the mapping is for {self._dtype}")
        origins = np.array([(tile.read.y, tile.read.x) for tile in tiles], np.int64).reshape(-1, 2)
        gather(
            source.rows,
            source.band.rows.y,
            self._grid.height,
            origins,
            batch,
            self._pick,
            self._grey,
            *self._fixed,
            *self._float,
        )
