"""Parts of the picture at full resolution with the cells' outlines, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..intensity.classes import NONE
from ..kernels.draw import lay_over
from .overview import colour_of
from .places import Place

#: Small parts are enlarged by a whole number to about this many pixels.
EDGE = 512
#: Width of the outlines in pixels of the drawing.
LINE = 2
#: Quality of the JPEG.
QUALITY = 82


@dataclass(frozen=True, slots=True)
class Closeup:
    """A place as a picture."""

    place: Place
    jpeg: bytes


def draw(
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int32],
    palette: npt.NDArray[np.uint8],
    classes: Mapping[int, int] | None = None,
) -> bytes:
    """Return a part of the picture with the outlines of its cells, as JPEG.

    Parameters
    ----------
    pixels
        Shape (h, w, 3): red, green and blue.
    labels
        Shape (h, w): the cells' numbers, 0 for background.
    palette
        Colours of outlines, as :func:`~cellseg.runtime.writers.overview.palette_on` gives them, or
        :func:`~cellseg.runtime.writers.overview.palette_of`.
    classes
        The class of each cell by its number, where cells have the colours of their classes.
    """
    larger = max(1, EDGE // max(pixels.shape[:2]))
    shown = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    size = pixels.shape[1] * larger, pixels.shape[0] * larger
    drawn = np.ascontiguousarray(cv2.resize(shown, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    # OpenCV compares no integers of 32 bits, but floats hold the few cells that are here, renumbered.
    numbers, here = np.unique(labels, return_inverse=True)
    grown = np.repeat(np.repeat(here.reshape(labels.shape).astype(np.float32), larger, 0), larger, 1)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (2 * LINE - 1, 2 * LINE - 1))
    edge = cv2.dilate(grown, cross) != cv2.erode(grown, cross)
    known = None if classes is None else np.array([classes.get(int(n), NONE) for n in numbers], np.int64)
    at = grown.astype(np.int64)
    cover = np.where(edge & (numbers[at] > 0), 255, 0).astype(np.uint8)
    lay_over(drawn, cover, colour_of(numbers, known)[at], palette)
    found, data = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert found
    return data.tobytes()
