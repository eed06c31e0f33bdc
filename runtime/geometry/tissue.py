"""Tissue, found in the overview of a stained slide."""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from .focus import Focus, digest_of
from .tiling import Region

#: Longer edge of the overview that tissue is looked for in, in pixels.
TISSUE_EDGE = 2048
#: Median brightness (of 255) from which on a picture counts as bright field.
BRIGHT = 140
#: Bounds of the colourfulness (0…255) from which on a pixel is tissue.
LEAST_COLOUR, MOST_COLOUR = 10, 40
#: Tissue also is what is darker than the glass by this many grey levels.
DARKER = 40
#: Specks smaller than this part of the overview are dust.
DUST = 2e-5
#: The rest is dilated by this many pixels of the overview or of the slide, whichever is more.
GROW, GROW_PIXELS = 4, 64


class Pictured(Protocol):
    """What is asked of a slide; every :class:`~cellseg.runtime.readers.SlideReader` is one."""

    @property
    def height(self) -> int:
        """Rows."""

    @property
    def width(self) -> int:
        """Columns."""

    @property
    def channels(self) -> int:
        """Values of a pixel."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Their type."""

    def overview(self, max_edge: int, /) -> npt.NDArray[Any]:
        """Return the whole slide with no edge longer than this, shape (h, w, channels)."""


class Tissue(Focus):
    """Tissue as found in a reduced picture; a little more than there is, for nothing must be missed.

    Parameters
    ----------
    mask
        Shape (h, w), true where there is tissue; covers the whole slide.
    height, width
        Size of the slide in pixels.
    """

    def __init__(self, mask: npt.NDArray[np.bool_], height: int, width: int) -> None:
        self.mask = mask
        self._size = height, width
        self._sums = cv2.integral(mask.astype(np.uint8), sdepth=cv2.CV_64F)

    @property
    def digest(self) -> str:
        """What tells this tissue from another."""
        return digest_of([self.mask])

    @property
    def part(self) -> float:
        """Part of the slide that is tissue, 0…1."""
        return float(self.mask.mean())

    def touches(self, region: Region) -> bool:
        """Return whether there is tissue in a rectangle."""
        return self._count(region)[0] > 0

    def inside(self, region: Region) -> npt.NDArray[np.bool_] | None:
        """Return which pixels of a rectangle inside the slide lie in a pixel of tissue."""
        found, most = self._count(region)
        if found == most:
            return None
        rows, columns = self.mask.shape
        y = np.arange(region.y, region.y1) * rows // self._size[0]
        x = np.arange(region.x, region.x1) * columns // self._size[1]
        return np.asarray(self.mask[np.ix_(y, x)])

    def _count(self, region: Region) -> tuple[int, int]:
        """Return how many pixels of the mask in a rectangle are tissue, and how many there are."""
        rows, columns = self.mask.shape
        height, width = self._size
        y0, y1 = max(region.y, 0) * rows // height, -(-min(region.y1, height) * rows // height)
        x0, x1 = max(region.x, 0) * columns // width, -(-min(region.x1, width) * columns // width)
        if y0 >= y1 or x0 >= x1:
            return 0, 0
        s = self._sums
        return int(s[y1, x1] - s[y0, x1] - s[y1, x0] + s[y0, x0]), (y1 - y0) * (x1 - x0)


def find_tissue(reader: Pictured) -> Tissue | None:
    """Find the tissue of a stained slide in its overview.

    Tissue is colourful or dark against the glass. The threshold of colourfulness is Otsu's within
    bounds, so that a slide full of tissue, or without any, is not torn apart.

    Returns
    -------
    Tissue or None
        ``None`` where everything must be looked at: the picture is not of bright field, or the slide
        is too small to be worth it.
    """
    if reader.channels != 3 or max(reader.height, reader.width) < TISSUE_EDGE:
        return None
    picture = reader.overview(TISSUE_EDGE).astype(np.float32)
    full = np.iinfo(reader.dtype).max if reader.dtype.kind == "u" else max(float(picture.max()), 1e-6)
    picture = cv2.GaussianBlur(picture * np.float32(255 / full), (0, 0), 1.5)
    luma = picture.mean(axis=2)
    if np.percentile(luma, 90) < BRIGHT:
        return None
    colour = picture.max(axis=2) - picture.min(axis=2)
    glass = float(np.percentile(luma, 95))
    otsu = cv2.threshold(np.clip(colour, 0, 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)[0]
    found = (colour > np.clip(otsu / 2, LEAST_COLOUR, MOST_COLOUR)) | (luma < glass - DARKER)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    sizes = stats[:count, cv2.CC_STAT_AREA].copy()
    sizes[0] = 0
    kept = (sizes >= max(2, DUST * found.size))[parts].astype(np.uint8)
    grow = max(GROW, -(-GROW_PIXELS * max(found.shape) // max(reader.height, reader.width)))
    grown = cv2.dilate(kept, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grow + 1,) * 2))
    return Tissue(grown > 0, reader.height, reader.width)
