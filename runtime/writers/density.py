"""``density.png``: how many cells there are where, as a map with a scale.

The map counts the cells whose centroid lies in each square of a grid; it holds the grid only.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..instances import Strip
from .base import Writer, write_whole
from .png import encode_png

#: Squares along the longer edge, at most.
MAX_SQUARES = 160
#: A square holds about this many cells' areas; finer grids show noise.
MIN_SQUARE = 64
#: Deviation of the smoothing in squares.
SMOOTHING = 1.0
#: Edge of the drawn map in pixels, and of its margins: right (scale), around.
EDGE, SCALE, MARGIN = 900, 280, 28
#: Height of the scale's letters in OpenCV's measure: the report shows the map at half its size.
LETTERS = 0.85
#: From none to many, dark to light, even in brightness (an own blend of violet, teal and yellow).
STOPS = ((13, 8, 35), (64, 24, 107), (44, 92, 138), (32, 144, 140), (94, 201, 98), (253, 231, 86))


class DensityMap(Writer):
    """Draws cells per mm², or per megapixel where no scale is known.

    Parameters
    ----------
    path
        The PNG to make.
    height, width
        Size of the image in pixels.
    pixel_size
        Micrometres a pixel, where known.
    """

    stage = "density"

    def __init__(self, path: Path, height: int, width: int, *, pixel_size: float | None = None) -> None:
        self.path = path
        #: What is in the file; there after :meth:`commit`.
        self.png = b""
        self._size = height, width
        self._pixel_size = pixel_size
        #: Edge of a square in pixels.
        self.square = max(MIN_SQUARE, math.ceil(max(height, width) / MAX_SQUARES))
        self._counts = np.zeros((-(-height // self.square), -(-width // self.square)), np.int64)

    def write(self, strip: Strip) -> None:
        """Count the cells of the next strip."""
        rows, columns = self._counts.shape
        y = np.clip((strip.cells.columns["centroid_y"] // self.square).astype(np.int64), 0, rows - 1)
        x = np.clip((strip.cells.columns["centroid_x"] // self.square).astype(np.int64), 0, columns - 1)
        self._counts += np.bincount(y * columns + x, minlength=rows * columns).reshape(rows, columns)

    @property
    def density(self) -> npt.NDArray[np.float64]:
        """Cells per mm² (per megapixel without a scale) around each square, smoothed a little.

        Squares that the border cuts count with the area they have.
        """
        height, width = self._size
        tall = np.minimum(self.square, height - np.arange(self._counts.shape[0]) * self.square)
        wide = np.minimum(self.square, width - np.arange(self._counts.shape[1]) * self.square)
        area = tall[:, None] * wide * (self._pixel_size or 1.0) ** 2 / 1e6
        blurred = [
            cv2.GaussianBlur(np.asarray(plane, np.float64), (0, 0), SMOOTHING, borderType=cv2.BORDER_CONSTANT)
            for plane in (self._counts, area)
        ]
        return np.asarray(blurred[0] / blurred[1])

    @property
    def unit(self) -> str:
        """What :attr:`density` counts in."""
        return "cells per sq. mm" if self._pixel_size else "cells per Mpx"

    def commit(self) -> None:
        """Draw the map and write it."""
        self.png = encode_png(draw(self.density, self._size, self.unit))
        write_whole(self.path, self.png)


def draw(density: npt.NDArray[np.float64], size: tuple[int, int], unit: str) -> npt.NDArray[np.uint8]:
    """Draw a density map with its scale.

    Parameters
    ----------
    density
        Shape (rows, columns).
    size
        Height and width of the image in pixels; the map keeps their ratio.
    unit
        What stands over the scale.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3), RGB
    """
    height, width = (max(40, round(EDGE * edge / max(size))) for edge in size)
    # The scale ends at a round number that few squares exceed.
    top = round_up(float(np.percentile(density, 99.5))) if density.any() else 1.0
    colours = palette()
    level = np.clip(density / top * 255, 0, 255).astype(np.uint8)
    drawn = colours[cv2.resize(level, (width, height), interpolation=cv2.INTER_CUBIC)]
    tall = max(height, 160)
    canvas = np.full((tall + 2 * MARGIN, width + SCALE + 2 * MARGIN, 3), 255, np.uint8)
    canvas[MARGIN : MARGIN + height, MARGIN : MARGIN + width] = drawn
    left, bar, head = MARGIN + width + 24, min(tall - 48, 400), MARGIN + 40
    ramp = np.linspace(255, 0, bar).astype(np.uint8)
    canvas[head : head + bar, left : left + 24] = colours[ramp][:, None]
    _write(canvas, unit, left, MARGIN + 18)
    for part in range(5):
        y = head + round((bar - 1) * part / 4)
        _write(
            canvas,
            f"{top * (4 - part) / 4:,.4g}" if top < 1000 else f"{top * (4 - part) / 4:,.0f}",
            left + 36,
            y + 10,
        )
    return canvas


def palette() -> npt.NDArray[np.uint8]:
    """Return 256 colours, shape (256, 3), that run evenly through :data:`STOPS`."""
    place = np.linspace(0, len(STOPS) - 1, 256)
    stops = np.array(STOPS, np.float64)
    channels = [np.interp(place, np.arange(len(STOPS)), stops[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def round_up(value: float) -> float:
    """Return the next of 1, 2, 4, 5, 8 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= value * (1 - 1e-9))


def _write(canvas: npt.NDArray[np.uint8], text: str, x: int, y: int) -> None:
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, LETTERS, (60, 60, 60), 2, cv2.LINE_AA)
