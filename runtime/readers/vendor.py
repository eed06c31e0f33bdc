"""Scanner formats that OpenSlide reads: NDPI, MRXS, SCN, BIF, VMS, DICOM and others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageError, UsageError
from ..tiling import Region
from .base import Level, Pixels, SlideReader, choose_channels, default_channel_names
from .blocks import Workers, reason

#: Edge of the squares that a region is decoded in, side by side.
SQUARE = 1024


class VendorReader(SlideReader):
    """A whole-slide image read through OpenSlide.

    Parameters
    ----------
    path
        The file, or the one that OpenSlide opens of several.
    series
        Only 0: OpenSlide shows one image a file.
    channels
        Names or numbers of the channels to keep, of red, green and blue.
    threads
        Threads that decode; by default one for each core, at most 8.

    Raises
    ------
    ImageError
        OpenSlide is not installed, or cannot read the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        series: int | None = None,
        channels: Sequence[int | str] | None = None,
        threads: int | None = None,
    ) -> None:
        if series:
            raise UsageError(f"{path}: there is no series {series}; this format has 0 only")
        try:
            import openslide
        except (ImportError, OSError) as error:
            raise ImageError(
                f"{path}: this format needs OpenSlide ({reason(error)}): pip install 'cellseg[slides]'"
            ) from None
        try:
            self._slide: Any = openslide.OpenSlide(str(path))
        except (openslide.OpenSlideError, OSError) as error:
            raise ImageError(
                f"{path}: OpenSlide cannot read it: {reason(error)}; is the file complete?"
            ) from None
        self._workers = Workers(threads)
        properties = self._slide.properties
        self._error: type[Exception] = openslide.OpenSlideError
        names = default_channel_names(3, colour=True)
        self._selection = choose_channels(names, channels, path)
        colour = properties.get("openslide.background-color", "ffffff")
        #: What lies where the scanner took no picture; OpenSlide leaves it transparent.
        self._background = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)], np.uint8)
        full_width, full_height = self._slide.level_dimensions[0]
        levels = [
            Level(height, width, (full_height / height + full_width / width) / 2)
            for width, height in self._slide.level_dimensions
        ]
        size = properties.get("openslide.mpp-x")
        super().__init__(
            path,
            dtype=np.uint8,
            channel_names=[names[i] for i in self._selection],
            levels=levels,
            pixel_size=float(size) if size else None,
        )

    def _read(self, region: Region, level: int) -> Pixels:
        out = np.empty((region.height, region.width, self.channels), np.uint8)

        def fill(corner: tuple[int, int]) -> None:
            y, x = corner
            part = out[y : y + SQUARE, x : x + SQUARE]
            part[...] = self._square(region.y + y, region.x + x, part.shape[0], part.shape[1], level)

        corners = [(y, x) for y in range(0, region.height, SQUARE) for x in range(0, region.width, SQUARE)]
        self._workers.each(fill, corners)
        return out

    def _square(self, y: int, x: int, height: int, width: int, level: int) -> Pixels:
        """Read a part of a level; shape (height, width, channels)."""
        # OpenSlide wants the corner in level-0 pixels and places other levels to a fraction of a pixel.
        full = self.levels[level].downsample
        corner = (round(x * full), round(y * full))
        try:
            picture = self._slide.read_region(corner, level, (width, height))
        except (self._error, OSError, ValueError) as error:
            raise ImageError(
                f"{self.path}: the region at row {y}, column {x} of level {level} cannot be decoded: "
                f"{reason(error)}"
            ) from None
        pixels = np.asarray(picture)
        seen = pixels[:, :, 3:] > 0
        rgb = np.where(seen, pixels[:, :, :3], self._background) if not seen.all() else pixels[:, :, :3]
        return rgb[:, :, self._selection]

    def close(self) -> None:
        """Close the slide and end the threads."""
        self._workers.close()
        if self._slide is not None:
            self._slide.close()
            self._slide = None
