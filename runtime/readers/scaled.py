"""A slide at another scale: the nearest level that is fine enough, reduced without aliasing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..common.spelling import option
from ..errors import UsageError
from ..geometry.tiling import Region
from ..kernels.resample import resample
from .base import DirectReader, Level, Pixels, SlideReader

#: A slide is not enlarged or reduced by more than this.
MOST_ENLARGED, MOST_REDUCED = 16, 64
#: A slide whose scale is within this part of the wanted one is taken as it is.
TOLERANCE = 0.1


def at_scale(
    reader: SlideReader, wanted: float, pixel_size: float | None = None, tolerance: float = TOLERANCE
) -> SlideReader:
    """Return a slide as it would look at another pixel size.

    Parameters
    ----------
    reader
        The slide; stays in the caller's care and must stay open.
    wanted
        Micrometres a pixel.
    pixel_size
        Micrometres a pixel of the slide, where its file does not say or is wrong.
    tolerance
        Relative difference that is not worth a rescale.

    Returns
    -------
    SlideReader
        A :class:`ScaledReader`, or ``reader`` itself.

    Raises
    ------
    UsageError
        The slide's scale is not known, or the rescaled picture would be absurd.
    """
    size = pixel_size or reader.pixel_size
    if size is None:
        raise UsageError(
            f"{reader.path}: does not say how large a pixel is; give it with {option('pixel_size')}"
        )
    # Pixels that are not square become such; what the user gives is the edge of a square one.
    stretch = math.sqrt(reader.aspect) if size == reader.pixel_size else 1.0
    factors = wanted / (size * stretch), wanted / (size / stretch)
    if all(abs(factor - 1) <= tolerance for factor in factors):
        return reader
    if not all(1 / MOST_ENLARGED <= factor <= MOST_REDUCED for factor in factors):
        raise UsageError(
            f"{reader.path}: {size:g} µm a pixel is too far from the model's {wanted:g}; check "
            f"{option('pixel_size')}"
        )
    edges = zip((reader.height, reader.width), factors, strict=True)
    height, width = (max(1, round(edge / factor)) for edge, factor in edges)
    return ScaledReader(reader, height, width, pixel_size=wanted)


def enlarged(reader: SlideReader, factor: float) -> SlideReader:
    """Return a slide with ``factor`` times as many pixels along each side.

    Raises
    ------
    UsageError
        The rescaled picture would be absurd.
    """
    if not 1 / MOST_REDUCED <= factor <= MOST_ENLARGED:
        raise UsageError(
            f"{reader.path}: would be read at {factor:.3g} times its size, wanted 1/{MOST_REDUCED} to "
            f"{MOST_ENLARGED}; check {option('diameter')}"
        )
    height, width = (max(1, round(edge * factor)) for edge in (reader.height, reader.width))
    scale = None if reader.pixel_size is None else reader.pixel_size / factor
    return ScaledReader(reader, height, width, pixel_size=scale)


class ScaledReader(DirectReader):
    """A slide resampled to another size.

    Pixel (i, j) of the result is centred at ``((i + ½) · H/h, (j + ½) · W/w)`` of the slide and weighs
    what lies around by a triangle as wide as two result pixels (two slide pixels where it is enlarged).
    The result does not depend on the regions that are asked for.

    Parameters
    ----------
    reader
        The slide; stays in the caller's care and must stay open.
    height, width
        The wanted size in pixels.
    pixel_size
        Micrometres a pixel at that size.
    """

    def __init__(
        self, reader: SlideReader, height: int, width: int, *, pixel_size: float | None = None
    ) -> None:
        self.full = reader
        factor = min(reader.height / height, reader.width / width)
        usable = [n for n, level in enumerate(reader.levels) if level.downsample <= factor * 1.001]
        self._level = max(usable, key=lambda n: reader.levels[n].downsample, default=0)
        source = reader.levels[self._level]
        self._rows = _Axis(source.height, height)
        self._columns = _Axis(source.width, width)
        super().__init__(
            reader.path,
            dtype=reader.dtype,
            channel_names=reader.channel_names,
            levels=[Level(height, width, 1.0)],
            pixel_size=pixel_size,
            notes=reader.notes,
        )

    @property
    def location(self) -> str:
        """Where the slide is."""
        return self.full.location

    @property
    def bad_blocks(self) -> tuple[str, ...]:
        """Damaged tiles of the slide that were read as zero."""
        return self.full.bad_blocks

    def overview(self, max_edge: int) -> Pixels:
        """Read the whole picture, reduced; from the slide's own levels where that needs no enlarging."""
        if max_edge <= min(max(self.height, self.width), max(self.full.height, self.full.width)):
            return self.full.overview(max_edge)
        return super().overview(max_edge)

    def _read_into(self, region: Region, level: int, out: Pixels) -> None:
        if not out.flags.c_contiguous:
            out[...] = self._read(region, level)
            return
        top, row_first, row_weights, rows = self._rows.taps(region.y, region.y1)
        left, column_first, column_weights, columns = self._columns.taps(region.x, region.x1)
        source = self.full.read(Region(top, left, rows, columns), self._level)
        resample(np.ascontiguousarray(source), row_first, row_weights, column_first, column_weights, out)


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis: ``size`` source pixels become ``out`` result pixels."""

    size: int
    out: int

    def taps(self, start: int, end: int) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float32], int]:
        """Return what result pixels ``start`` to ``end`` are made of.

        Returns
        -------
        first, offsets, weights, count
            The first source pixel of all and how many follow; for each result pixel the position of
            its own first one among these, and its weights, shape (end - start, taps), which sum to 1.
        """
        scale = self.size / self.out
        reach = max(1.0, scale)
        taps = min(self.size, int(np.ceil(2 * reach)) + 1)
        # Centres of the result pixels, in source pixels whose centres are their index.
        centre = (np.arange(start, end) + 0.5) * scale - 0.5
        first = np.clip(np.ceil(centre - reach).astype(np.int64), 0, self.size - taps)
        place = first[:, None] + np.arange(taps)
        weights = np.maximum(1 - np.abs(place - centre[:, None]) / reach, 0)
        weights /= weights.sum(axis=1, keepdims=True)
        low = int(first[0])
        return low, first - low, weights.astype(np.float32), int(first[-1]) + taps - low
