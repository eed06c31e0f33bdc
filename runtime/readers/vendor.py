"""Scanner formats that OpenSlide reads: NDPI, MRXS, SCN, BIF, VMS, DICOM and others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageError, UsageError
from ..geometry.tiling import Region
from .base import Level, Pixels, SlideReader, default_channel_names, select
from .blocks import Workers, reason, skipping
from .scale import read_scale

#: Edge of the squares that a region is decoded in, side by side.
SQUARE = 1024
#: Edge of the squares in which damage is looked for, where the file does not say how large its tiles are.
PIECE = 256


def installed() -> bool:
    """Return whether OpenSlide can be used here."""
    try:
        import openslide  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


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
    skip_bad_tiles
        Read damaged tiles as zero and list them in :attr:`bad_blocks` instead of raising.

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
        skip_bad_tiles: bool = False,
    ) -> None:
        self._skip = skip_bad_tiles
        self._bad: dict[str, None] = {}
        self._repair = threading.Lock()
        if series:
            raise UsageError(f"{path}: there is no series {series}; this format has 0 only")
        try:
            import openslide
        except (ImportError, OSError) as error:
            raise ImageError(
                f"{path}: this format needs OpenSlide ({reason(error)}): pip install 'cellseg[slides]'"
            ) from None
        self._error: type[Exception] = openslide.OpenSlideError
        self._open: Callable[[], Any] = lambda: openslide.OpenSlide(str(path))
        try:
            self._slide: Any = self._open()
        except (self._error, OSError) as error:
            raise ImageError(
                f"{path}: OpenSlide cannot read it: {reason(error)}; is the file complete?"
            ) from None
        self._workers = Workers(threads)
        properties = self._slide.properties
        names = default_channel_names(3, colour=True)
        self._selection, called = select(names, channels, path)
        colour = properties.get("openslide.background-color", "ffffff")
        #: What lies where the scanner took no picture; OpenSlide leaves it transparent.
        self._background = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)], np.uint8)
        full_width, full_height = self._slide.level_dimensions[0]
        levels = [
            Level(height, width, (full_height / height + full_width / width) / 2)
            for width, height in self._slide.level_dimensions
        ]
        super().__init__(
            path,
            dtype=np.uint8,
            channel_names=called,
            levels=levels,
            scale=read_scale(properties.get("openslide.mpp-x"), properties.get("openslide.mpp-y")),
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

    @property
    def bad_blocks(self) -> tuple[str, ...]:
        """Damaged tiles that were read as zero."""
        return tuple(self._bad)

    def _square(self, y: int, x: int, height: int, width: int, level: int) -> Pixels:
        """Read a part of a level; shape (height, width, channels)."""
        try:
            return self._pixels(self._slide, y, x, height, width, level)
        except (self._error, OSError, ValueError):
            return self._in_pieces(y, x, height, width, level)

    def _in_pieces(self, y: int, x: int, height: int, width: int, level: int) -> Pixels:
        """Read a part of a level tile by tile, for one of them is damaged.

        After an error OpenSlide refuses all that is asked of the same handle, also by other threads; so
        what failed is tried again with a handle that no other thread has, and a piece that fails again
        is damaged.
        """
        out = np.zeros((height, width, self.channels), np.uint8)
        with self._repair:
            own = self._open()
            try:
                for top, left, tall, wide in self._pieces(own, y, x, height, width, level):
                    try:
                        part = self._pixels(own, top, left, tall, wide, level)
                    except (self._error, OSError, ValueError) as error:
                        message = (
                            f"{self.path}: the tile at row {top}, column {left} of level {level} cannot be "
                            f"decoded: {reason(error)}"
                        )
                        if not self._skip:
                            raise ImageError(f"{message}; {skipping()}") from None
                        self._bad[message] = None
                        own.close()
                        own = self._open()
                    else:
                        out[top - y : top - y + tall, left - x : left - x + wide] = part
            finally:
                own.close()
                # The old handle closes itself when no other thread is at it any more.
                self._slide = self._open()
        return out

    def _pieces(
        self, slide: Any, y: int, x: int, height: int, width: int, level: int
    ) -> Iterator[tuple[int, int, int, int]]:
        """Yield row, column, height and width of what each tile of a level holds of a rectangle."""
        properties = dict(slide.properties)
        edges = [properties.get(f"openslide.level[{level}].tile-{name}") for name in ("height", "width")]
        tall, wide = (min(max(int(edge or PIECE), 16), SQUARE) for edge in edges)
        for top in range(y // tall * tall, y + height, tall):
            for left in range(x // wide * wide, x + width, wide):
                y0, x0 = max(top, y), max(left, x)
                yield y0, x0, min(top + tall, y + height) - y0, min(left + wide, x + width) - x0

    def _pixels(self, slide: Any, y: int, x: int, height: int, width: int, level: int) -> Pixels:
        """Read a part of a level through one handle."""
        # OpenSlide wants the corner in level-0 pixels and places other levels to a fraction of a pixel.
        full = self.levels[level].downsample
        corner = (round(x * full), round(y * full))
        pixels = np.asarray(slide.read_region(corner, level, (width, height)))
        seen = pixels[:, :, 3:] > 0
        rgb = np.where(seen, pixels[:, :, :3], self._background) if not seen.all() else pixels[:, :, :3]
        return rgb[:, :, self._selection]

    def close(self) -> None:
        """Close the slide and end the threads."""
        self._workers.close()
        if self._slide is not None:
            self._slide.close()
            self._slide = None
