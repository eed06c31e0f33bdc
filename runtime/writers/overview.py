"""``overview.png``: the reduced picture with the cells' outlines over it, for a first look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..geometry.regions import Polygons
from ..geometry.tiling import fit
from ..instances import Cells, Strip
from ..intensity.classes import NONE, Classes
from ..intensity.display import Display
from ..kernels.draw import draw_rings, lay_over
from .base import Writer, write_whole
from .png import encode_png

#: The longer edge of the picture in pixels.
MAX_EDGE = 2000
#: Small pictures are enlarged by a whole number until their longer edge is about this.
MIN_EDGE = 1000
#: Quality of the JPEG.
QUALITY = 88
#: Where a full-resolution pixel is smaller than this on the overview, a cell is a dot, not a line.
LINE_SCALE = 0.15
#: Colours of outlines, red green blue, on dark and on bright pictures; neighbours rarely agree.
ON_DARK = ((255, 209, 102), (6, 214, 160), (76, 201, 240), (255, 112, 166), (199, 125, 255), (255, 151, 112))
ON_BRIGHT = ((255, 221, 0), (0, 229, 255), (124, 255, 20), (255, 138, 0))
#: Mean brightness (of 255) above which a picture is bright.
BRIGHT = 110
#: Colours are dealt out before it is known which palette it will be: a multiple of both lengths.
COLOURS = 12
#: Rows of dots that are worked out at once: their numbers stay in cache, where those of all take .1 s.
ROWS = 64
#: The colour that all dots have.
DOT = 1
#: The colour, blue green red, of cells without a class among such that have one; the last of the palette.
CLASSLESS = (150, 150, 150)
#: Regions of interest are outlined in white on black, so that they show on any picture: blue green red,
#: width in pixels.
REGION_LINES = (((0, 0, 0), 5), ((255, 255, 255), 2))
#: Fractions of a pixel in the coordinates of regions, as a power of two.
_SHIFT = 4
#: Largest coordinate in those parts.
_FURTHEST = 1 << 30


def reduced_size(height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the reduced picture of an image."""
    return fit(height, width, MAX_EDGE)


def palette_on(shown: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the outlines' colours on a picture, blue green red, shape (COLOURS, 3)."""
    colours = np.array(ON_BRIGHT if shown.mean() > BRIGHT else ON_DARK, np.uint8)
    return np.ascontiguousarray(colours[np.arange(COLOURS) % len(colours), ::-1])


def palette_of(classes: Classes) -> npt.NDArray[np.uint8]:
    """Return the outlines' colours of cells by their class, blue green red, shape (COLOURS, 3)."""
    palette = np.full((COLOURS, 3), CLASSLESS, np.uint8)
    colours = np.array(list(classes.colours.values()), np.uint8)
    palette[: len(colours)] = colours[:, ::-1]
    return palette


def colour_of(numbers: npt.NDArray[Any], classes: npt.NDArray[Any] | None) -> npt.NDArray[np.uint8]:
    """Return which colour of the palette each cell has: by its class, or by its number."""
    if classes is None:
        return (numbers.astype(np.int64) * 7 % COLOURS).astype(np.uint8)
    return np.where(classes == NONE, COLOURS - 1, classes).astype(np.uint8)


class Overview(Writer):
    """Writes the picture that a person looks at first.

    Cells are drawn as they come; only the picture itself is held.

    Parameters
    ----------
    path
        The PNG to make.
    picture
        The whole image reduced, shape (h, w, channels), for example ``reader.overview(MAX_EDGE)``; or
        a function that returns it, of the size :func:`reduced_size`, once all strips are written.
    height, width
        Size of the full image in pixels.
    regions
        Regions of interest to outline.
    classes
        How cells are told positive: they are drawn in the colours of their classes. A dot that stands for
        several cells has the colour of their mean class.
    """

    stage = "overview"

    def __init__(
        self,
        path: Path,
        picture: npt.NDArray[Any] | Callable[[], npt.NDArray[Any]],
        height: int,
        width: int,
        *,
        regions: Polygons | None = None,
        classes: Classes | None = None,
    ) -> None:
        self.path = path
        #: The same as JPEG, for the report, and how picture and outlines are shown; there after
        #: :meth:`commit`.
        self.jpeg = b""
        self.display = Display(())
        self.palette = np.zeros((COLOURS, 3), np.uint8)
        self._regions, self._classes = regions, classes
        self._given = picture
        rows, columns = reduced_size(height, width) if callable(picture) else picture.shape[:2]
        enlarge = max(1, min(4, round(MIN_EDGE / max(rows, columns))))
        self._shape = rows * enlarge, columns * enlarge
        self._scale = np.array([self._shape[1] / width, self._shape[0] / height])
        # How much of each pixel a cell covers, and which colour it has there.
        self._cover = np.zeros(self._shape, np.uint8)
        self._lined = bool(self._scale.min() >= LINE_SCALE)
        # Pixels of the image in cells, by the pixel of the overview on which their dots lie.
        self._covered = np.zeros((0, 0) if self._lined else self._shape, np.float64)
        self._colour = np.zeros(self._shape, np.uint8)
        # The same pixels, each times the number of its cell's class; those without one count as the first.
        dots = self._covered.shape if classes is not None else (0, 0)
        self._classed = np.zeros(dots, np.float64)

    def write(self, strip: Strip) -> None:
        """Draw the cells of the next strip."""
        if self._lined:
            self._lines(strip.cells)
        else:
            self._dots(strip.cells)

    def _lines(self, cells: Cells) -> None:
        picked = colour_of(cells.columns["label"], None if self._classes is None else cells.columns["class"])
        width = 2.0 if self._scale.min() > 1.5 else 1.0
        # Outlines run along pixel corners; the kernel's pixels have their centres at whole numbers.
        draw_rings(
            cells.outline,
            cells.outline_start,
            picked,
            width,
            self._cover,
            self._colour,
            x_scale=self._scale[0],
            y_scale=self._scale[1],
            shift=-0.5,
        )

    def _dots(self, cells: Cells) -> None:
        rows, columns = self._shape
        y = (cells.columns["centroid_y"].astype(np.float64) + 0.5) * self._scale[1]
        x = (cells.columns["centroid_x"].astype(np.float64) + 0.5) * self._scale[0]
        at = np.minimum(y.astype(np.int64), rows - 1) * columns + np.minimum(x.astype(np.int64), columns - 1)
        if len(at):
            top = at.min()  # of the part of the picture that these cells are in
            areas = np.bincount(at - top, weights=cells.columns["area"])
            self._covered.reshape(-1)[top : top + len(areas)] += areas
            if self._classes is not None:
                levels = np.maximum(cells.columns["class"], 0) * cells.columns["area"]
                self._classed.reshape(-1)[top : top + len(areas)] += np.bincount(at - top, weights=levels)

    def commit(self) -> None:
        """Compose the picture and write it."""
        if not self._lined:
            for y in range(0, self._shape[0], ROWS):
                part = self._covered[y : y + ROWS] * self._scale.prod()
                self._cover[y : y + ROWS] = np.rint(np.minimum(part, 1) * 255)
            self._colour[:] = DOT
            if self._classes is not None:
                self._colour[:] = np.rint(self._classed / np.maximum(self._covered, 1))
        picture = self._given() if callable(self._given) else self._given
        self.display = Display.of(picture)
        shown = self.display.apply(picture)
        if shown.shape[:2] != self._shape:
            shown = cv2.resize(shown, self._shape[::-1], interpolation=cv2.INTER_CUBIC)
        self.palette = palette_on(shown) if self._classes is None else palette_of(self._classes)
        drawn = np.asarray(cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), np.uint8)
        lay_over(drawn, self._cover, self._colour, self.palette)
        if self._regions is not None:
            rings = [ring for rings in self._regions.polygons for ring in rings]
            scaled = [np.rint((ring * self._scale - 0.5) * (1 << _SHIFT)) for ring in rings]
            # A corner may lie far outside of the picture, but not of OpenCV's numbers.
            scaled = [np.clip(ring, -_FURTHEST, _FURTHEST).astype(np.int32) for ring in scaled]
            for colour, width in REGION_LINES:
                cv2.polylines(drawn, scaled, True, colour, width, cv2.LINE_AA, _SHIFT)
        self.jpeg = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        write_whole(self.path, encode_png(np.asarray(cv2.cvtColor(drawn, cv2.COLOR_BGR2RGB), np.uint8)))
