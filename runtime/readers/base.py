"""What the rest of cellseg knows about a picture: its size, its scale, and how to read a region.

A reader hands out raw pixel values, height × width × channels, in one of three types (uint8, uint16,
float32). It does not normalise, pad or rescale; it knows nothing of tiles, models or cells.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.closing import Closing
from ..common.pulse import beat
from ..errors import ImageError, UsageError
from ..geometry.tiling import Region, fit
from ..intensity.channels import COLOURS, are_unnamed, list_channels
from .area import Shrinker
from .scale import Scale

Pixels = npt.NDArray[Any]
#: Rows are read in strips of about this many bytes when a whole level is walked.
STRIP_BYTES = 48 << 20
#: Pixels of an edge; the largest slides have some 300,000.
LONGEST_EDGE = 1 << 26


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a picture."""

    #: Rows.
    height: int
    #: Columns.
    width: int
    #: Full-resolution pixels for one pixel of this level, 1.0 at level 0.
    downsample: float


class SlideReader(Closing):
    """A picture of any size that is read region by region.

    Readers are context managers. :meth:`read` may be called from several threads at once.

    Attributes
    ----------
    path
        The file or folder, or a made-up name for an array in memory.
    dtype
        uint8, uint16 or float32, in native byte order.
    channel_names
        One name for each channel that :meth:`read` returns.
    pixel_size
        Micrometres a pixel at level 0; ``None`` where the file does not say. Of pixels that are not
        square, the edge of a square of the same area.
    aspect
        Height of a pixel by its width.
    levels
        Resolutions, the full one first.
    notes
        Choices made for the user that they may want to change, one line each, for the log.
    """

    def __init__(
        self,
        path: Path,
        *,
        dtype: npt.DTypeLike,
        channel_names: Sequence[str],
        levels: Sequence[Level],
        pixel_size: float | None = None,
        scale: Scale | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        scale = Scale(pixel_size) if scale is None else scale
        self.path = path
        self.dtype = np.dtype(dtype)
        self.channel_names = tuple(channel_names)
        self.levels = tuple(levels)
        self.pixel_size = scale.size
        self.aspect = scale.aspect
        self.notes = (*notes, *scale.notes)
        if min(self.height, self.width, self.channels) < 1:
            raise ImageError(
                f"{path}: the picture has no pixels ({self.height}×{self.width}×{self.channels}); "
                "give one with at least one row, column and channel"
            )
        if max(self.height, self.width) > LONGEST_EDGE:
            raise ImageError(
                f"{path}: the picture claims {self.height:,}×{self.width:,} pixels; edges of up to "
                f"{LONGEST_EDGE:,} are read"
            )

    @property
    def height(self) -> int:
        """Rows at full resolution."""
        return self.levels[0].height

    @property
    def width(self) -> int:
        """Columns at full resolution."""
        return self.levels[0].width

    @property
    def channels(self) -> int:
        """Channels that :meth:`read` returns."""
        return len(self.channel_names)

    @property
    def location(self) -> str:
        """Where the picture is, for records and messages: its path or URL."""
        return str(self.path)

    @property
    def bad_blocks(self) -> tuple[str, ...]:
        """Damaged tiles that were read as zero; only where the reader was told to skip them."""
        return ()

    def read(self, region: Region, level: int = 0) -> Pixels:
        """Read a rectangle.

        Parameters
        ----------
        region
            A rectangle inside the level, in that level's pixels.
        level
            Index into :attr:`levels`.

        Returns
        -------
        ndarray, shape (region.height, region.width, channels)
            Raw values of type :attr:`dtype`. It may be a view: do not write into it.

        Raises
        ------
        UsageError
            The region does not lie inside the level.
        ImageError
            The file is damaged there, or has gone.
        """
        self._check(region, level)
        pixels = self._read(region, level)
        beat()
        return pixels

    def read_into(self, region: Region, out: Pixels, level: int = 0) -> None:
        """Read a rectangle into an array: for those who have one, without an array between.

        Parameters
        ----------
        region, level
            As for :meth:`read`.
        out
            Shape (region.height, region.width, channels), of type :attr:`dtype`; all of it is written.

        Raises
        ------
        UsageError, ImageError
            As for :meth:`read`, or the file no longer holds what it promised.
        """
        self._check(region, level)
        self._read_into(region, level, out)
        beat()

    def _check(self, region: Region, level: int) -> None:
        size = self.levels[level]
        inside = region.y >= 0 and region.x >= 0 and region.y1 <= size.height and region.x1 <= size.width
        if not inside or region.height < 1 or region.width < 1:
            raise UsageError(
                f"{self.path}: region {region} does not lie inside level {level} "
                f"({size.height}×{size.width} pixels)"
            )

    @abstractmethod
    def _read(self, region: Region, level: int) -> Pixels:
        """Read a region that is known to lie inside the level."""

    def _read_into(self, region: Region, level: int, out: Pixels) -> None:
        """Read such a region into ``out``; readers that need no array of their own override this."""
        pixels = self._read(region, level)
        if pixels.shape != out.shape or pixels.dtype != out.dtype:
            raise ImageError(
                f"{self.path}: rows {region.y} to {region.y1} came as {pixels.dtype} {pixels.shape}, "
                f"expected {out.dtype} {out.shape}; is the file changing?"
            )
        out[...] = pixels

    def close(self) -> None:
        """Give back files and threads; a second call does nothing."""
        return

    def overview(self, max_edge: int) -> Pixels:
        """Read the whole picture, reduced by area averaging.

        Reads the smallest level that is large enough, strip by strip, so memory depends on the
        width of that level only.

        Parameters
        ----------
        max_edge
            The longer edge of the result in pixels; a smaller picture is not enlarged.

        Returns
        -------
        ndarray, shape (h, w, channels)
            Values of type :attr:`dtype`. Pixel (i, j) averages the rectangle of the picture from
            (i·H/h, j·W/w) to ((i+1)·H/h, (j+1)·W/w).
        """
        height, width = fit(self.height, self.width, max_edge)
        enough = [i for i, at in enumerate(self.levels) if at.height >= height and at.width >= width]
        level = max(enough, key=lambda i: self.levels[i].downsample)
        size = self.levels[level]
        rows = max(1, STRIP_BYTES // (size.width * self.channels * self.dtype.itemsize))
        shrinker = Shrinker(size.height, size.width, height, width, self.dtype)
        for y in range(0, size.height, rows):
            shrinker.push(self.read(Region(y, 0, min(rows, size.height - y), size.width), level))
        return shrinker.result()

    def sample(self, max_pixels: int = 4_000_000, window: int = 256) -> Pixels:
        """Read full-resolution windows on a regular lattice, laid side by side.

        Grey-level statistics must be taken at full resolution: in an overview small bright cells
        have melted into the background. Which windows are taken depends on the picture's size only.

        Parameters
        ----------
        max_pixels
            About how many pixels to read at most; a picture of up to this size is read whole.
        window
            Edge of a window in pixels.

        Returns
        -------
        ndarray, shape (h, w, channels)
            Pixels in no meaningful arrangement, for histograms.
        """
        if self.height * self.width <= max_pixels:
            return self.read(Region(0, 0, self.height, self.width))
        tall, wide = min(window, self.height), min(window, self.width)
        count = max(1, max_pixels // (tall * wide))
        down, across = self.height // tall, self.width // wide
        rows = min(down, max(1, round(math.sqrt(count * down / across))))
        columns = min(across, max(1, count // rows))
        rows = min(down, max(1, count // columns))
        stripes = []
        for i in range(rows):
            y = (2 * i + 1) * (self.height - tall) // (2 * rows)
            xs = [(2 * j + 1) * (self.width - wide) // (2 * columns) for j in range(columns)]
            stripes.append(np.concatenate([self.read(Region(y, x, tall, wide)) for x in xs], axis=1))
        return np.concatenate(stripes, axis=0)


class DirectReader(SlideReader):
    """A reader that puts pixels where they are wanted; :meth:`read` makes the place."""

    def _read(self, region: Region, level: int) -> Pixels:
        out = np.empty((region.height, region.width, self.channels), self.dtype)
        self._read_into(region, level, out)
        return out

    @abstractmethod
    def _read_into(self, region: Region, level: int, out: Pixels) -> None:
        """Read a region that is known to lie inside the level; write all of ``out``."""


def select(
    names: Sequence[str], wanted: Sequence[int | str] | None, path: Path | str
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the channels to read, and what they are called.

    Three that the user picked from channels without names are taken for red, green and blue: nothing else
    could be meant, and a file may fail to say so.

    Parameters
    ----------
    names, wanted, path
        As for :func:`choose_channels`.
    """
    chosen = choose_channels(names, wanted, path)
    called = tuple(names[i] for i in chosen)
    if wanted is not None and len(called) == 3 and are_unnamed(called):
        called = COLOURS
    return chosen, called


def choose_channels(
    names: Sequence[str], wanted: Sequence[int | str] | None, path: Path | str
) -> tuple[int, ...]:
    """Turn the user's channel names or numbers into indices.

    Parameters
    ----------
    names
        The names of the stored channels.
    wanted
        Names (any case) or numbers from 0, in the order to read them; ``None`` for all.
    path
        For messages.

    Raises
    ------
    UsageError
        A channel does not exist, is named twice, or a name stands for several.
    """
    if wanted is None:
        return tuple(range(len(names)))
    listed = list_channels(names)
    if isinstance(wanted, str | int):  # a call with one name
        wanted = [wanted]
    chosen = []
    for item in wanted:
        text = str(item).strip()
        found = [i for i, name in enumerate(names) if name == text]
        found = found or [i for i, name in enumerate(names) if name.strip().casefold() == text.casefold()]
        if not isinstance(item, str) or not found:
            found = [int(text)] if text.isdecimal() and int(text) < len(names) else []
        if not found:
            raise UsageError(f"{path}: there is no channel {item!r}; it has {listed}")
        if len(found) > 1:
            raise UsageError(
                f"{path}: {len(found)} channels are called {item!r}; give the number of one: {listed}"
            )
        chosen += found
    if not chosen or len(set(chosen)) != len(chosen):
        raise UsageError(f"{path}: name each channel once, found {list(wanted)}; it has {listed}")
    return tuple(chosen)


def name_channels(given: Sequence[str], count: int, *, colour: bool) -> tuple[str, ...]:
    """Return the names of a picture's channels.

    Parameters
    ----------
    given
        What the file calls them; used where there is one for each.
    count
        Number of channels.
    colour
        Whether the file says that the first three are red, green and blue; names of stains say otherwise.
    """
    own = len(given) == count and all(name.strip() for name in given)
    if own and not (colour and are_unnamed(given)):
        return tuple(given)
    return default_channel_names(count, colour=colour)


def default_channel_names(count: int, *, colour: bool) -> tuple[str, ...]:
    """Return names for channels that the file does not name.

    Parameters
    ----------
    count
        Number of channels.
    colour
        Whether the first three are red, green and blue.
    """
    if colour and count >= 3:
        return (*COLOURS, *(f"channel {i}" for i in range(3, count)))
    return ("intensity",) if count == 1 else tuple(f"channel {i}" for i in range(count))


def readable(dtype: np.dtype[Any], path: Path) -> np.dtype[Any]:
    """Return the type in which values of ``dtype`` are handed out: uint8, uint16 or float32.

    Raises
    ------
    ImageError
        Values of that type are not grey levels.
    """
    if dtype == np.bool_ or dtype == np.uint8:
        return np.dtype(np.uint8)
    if dtype == np.uint16:
        return np.dtype(np.uint16)
    if dtype.kind in "iuf":
        return np.dtype(np.float32)
    raise ImageError(f"{path}: pixels of type {dtype} are not grey levels; give 8-bit, 16-bit or float")
