"""Pure integer geometry: an image and a model become bands of tiles.

The cores of the tiles partition the image exactly. Every tile origin is congruent modulo the model's
``multiple``, so pooling windows fall on the same pixels in every tiling: that, with a sufficient halo,
is what makes tiled and whole results equal. This module knows nothing of pixels.

::

    ├─ halo ─┼──── core ────┼─ halo ─┤            one tile: ``read`` is all of it
             ├──── core ────┼──── core ────┼──┤   a band: the last core ends with the image
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in full-resolution pixels, ``[y, y + height) × [x, x + width)``."""

    y: int
    x: int
    height: int
    width: int

    @property
    def y1(self) -> int:
        """First row below the rectangle."""
        return self.y + self.height

    @property
    def x1(self) -> int:
        """First column right of the rectangle."""
        return self.x + self.width

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width


@dataclass(frozen=True, slots=True)
class Tile:
    """What one inference sees and what is kept of it."""

    #: Position in the grid, row by row, from 0.
    index: int
    #: Number of the band it belongs to.
    band: int
    #: Pixels the model sees, tile × tile; sticks out of the image at its borders.
    read: Region
    #: Pixels that are kept; inside the image.
    core: Region


@dataclass(frozen=True, slots=True)
class Band:
    """A full-width strip of cores."""

    #: Number of the band from the top, from 0.
    index: int
    #: Rows and columns that its cores cover.
    region: Region
    #: The image's rows that its tiles see, cut at the image's borders.
    rows: Region
    #: Its tiles from left to right.
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiling of an image.

    Raises
    ------
    ValueError
        A size is not positive, a tile leaves no core, or tile or halo is not a multiple of ``multiple``.
    """

    #: Size of the image in pixels.
    height: int
    width: int
    #: Edge of a tile in pixels, halo included.
    tile: int
    #: Pixels a side that a tile sees beyond its core.
    halo: int
    #: What tile and halo must be multiples of.
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"an image needs at least one pixel, found {self.height}×{self.width}")
        if self.multiple < 1 or self.halo < 0:
            raise ValueError(f"multiple {self.multiple} and halo {self.halo} must be 1 and 0 at least")
        for name, value in (("tile", self.tile), ("halo", self.halo)):
            if value % self.multiple:
                raise ValueError(f"{name} {value} is not a multiple of {self.multiple}")
        if self.core < 1:
            raise ValueError(
                f"tile {self.tile} leaves no core inside a halo of {self.halo}; "
                f"the smallest tile is {2 * self.halo + self.multiple}"
            )

    @classmethod
    def fitting(cls, height: int, width: int, tile: int, halo: int, multiple: int = 1) -> TileGrid:
        """Return the grid of tiles of at most ``tile`` pixels that computes the fewest pixels.

        A picture of 256 × 256 in one tile of 512 would be three quarters padding, and one of
        1000 × 1000 in cores of 448 would be cut 3 × 3 and end in thin strips. Edges change in steps
        of 32 pixels at least, so that a folder of pictures needs few different tiles.
        """
        step = multiple * max(1, 32 // multiple)
        edges = {tile, *range(-(-(2 * halo + 1) // step) * step, tile, step)}
        grids = [cls(height, width, edge, halo, multiple) for edge in sorted(edges, reverse=True)]
        return min(grids, key=lambda grid: len(grid) * grid.tile**2)

    @property
    def core(self) -> int:
        """Edge of a whole core in pixels."""
        return self.tile - 2 * self.halo

    @property
    def n_bands(self) -> int:
        """Number of bands."""
        return -(-self.height // self.core)

    @property
    def n_columns(self) -> int:
        """Number of tiles in a band."""
        return -(-self.width // self.core)

    @property
    def useful_fraction(self) -> float:
        """Image pixels per computed pixel, 0…1."""
        return self.height * self.width / (len(self) * self.tile**2)

    def __len__(self) -> int:
        return self.n_bands * self.n_columns

    def band(self, index: int) -> Band:
        """Return one band, ``0 <= index < n_bands``."""
        if not 0 <= index < self.n_bands:
            raise IndexError(f"band {index} of {self.n_bands}")
        core, halo, tile = self.core, self.halo, self.tile
        y = index * core
        height = min(core, self.height - y)
        tiles = tuple(
            Tile(
                index * self.n_columns + column,
                index,
                Region(y - halo, column * core - halo, tile, tile),
                Region(y, column * core, height, min(core, self.width - column * core)),
            )
            for column in range(self.n_columns)
        )
        first, last = seen(y - halo, y - halo + tile, self.height)
        return Band(
            index, Region(y, 0, height, self.width), Region(first, 0, last - first, self.width), tiles
        )

    def __iter__(self) -> Iterator[Band]:
        return (self.band(index) for index in range(self.n_bands))


def seen(start: int, stop: int, size: int) -> tuple[int, int]:
    """Return the pixels ``[first, last)`` of a line that reflection of ``[start, stop)`` refers to.

    Beyond the last of the line's ``size`` pixels the read goes on with pixels before it, so a short last
    tile may refer to pixels before its own halo.
    """
    first, last = max(start, 0), min(stop, size)
    if start < 0:  # pixel -k is pixel k, or anything where it bounces more than once
        last = min(size, max(last, 1 - start))
    if stop > size:  # pixel size - 1 + k is pixel size - 1 - k
        first = max(0, min(first, 2 * size - 1 - stop))
    return first, last


def reflect(index: int, size: int) -> int:
    """Return the pixel that stands for position ``index`` of a line of ``size`` pixels.

    Mirrored about the centre of the border pixels as often as needed (NumPy's ``reflect``), so lines
    shorter than the padding, down to one pixel, are served too.
    """
    if size == 1:
        return 0
    index %= 2 * (size - 1)
    return index if index < size else 2 * (size - 1) - index


def fit(height: int, width: int, max_edge: int) -> tuple[int, int]:
    """Return the size that a height × width picture has when its longer edge is at most ``max_edge``."""
    longest = max(height, width)
    if longest <= max_edge:
        return height, width
    return max(1, round(height * max_edge / longest)), max(1, round(width * max_edge / longest))
