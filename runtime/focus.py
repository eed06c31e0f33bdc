"""Where on a slide to look: regions of interest drawn by a person, tissue found in the overview.

Both answer two questions for a rectangle: whether there is anything to do, and which of its pixels
count. This module knows nothing of tiles or models.
"""

from __future__ import annotations

import gzip
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .errors import UsageError
from .readers import SlideReader
from .tiling import Region

Ring = npt.NDArray[np.float64]
#: Longer edge of the overview that tissue is looked for in, in pixels.
TISSUE_EDGE = 2048
#: Median brightness (of 255) from which on a picture counts as bright field.
BRIGHT = 140
#: Bounds of the colourfulness (0…255) from which on a pixel is tissue.
LEAST_COLOUR, MOST_COLOUR = 10, 40
#: Tissue also is what is darker than the glass by this many grey levels.
DARKER = 40
#: Specks smaller than this part of the overview are dust; the rest grows by so many of its pixels.
DUST, GROW = 2e-5, 4


class Focus(ABC):
    """A part of a slide."""

    @abstractmethod
    def touches(self, region: Region) -> bool:
        """Return whether any pixel of a rectangle counts; ``True`` where that is not certain."""

    @abstractmethod
    def inside(self, region: Region) -> npt.NDArray[np.bool_] | None:
        """Return which pixels count, shape (height, width); ``None`` where all do."""


class Polygons(Focus):
    """Regions of interest: pixels whose centre lies inside any of some polygons.

    Parameters
    ----------
    polygons
        Each a list of rings, shape (n, 2): x and y in full-resolution pixels, from the image's corner.
        A point is inside where it lies within an odd number of a polygon's rings.
    """

    def __init__(self, polygons: list[list[Ring]]) -> None:
        self._polygons = []
        for rings in polygons:
            # Edges from every vertex to the next, as rows of (x0, y0, x1, y1).
            edges = np.concatenate([np.hstack([ring, np.roll(ring, -1, axis=0)]) for ring in rings])
            self._polygons.append(edges)
        self._boxes = [(e[:, 1].min(), e[:, 0].min(), e[:, 1].max(), e[:, 0].max()) for e in self._polygons]

    @classmethod
    def read(cls, path: str | Path, height: int, width: int) -> Polygons:
        """Read the polygons of a GeoJSON file, as QuPath exports annotations; also ``.gz``.

        Parameters
        ----------
        path
            The file: a FeatureCollection, a Feature, a geometry, or a list of features.
        height, width
            Size of the image in pixels.

        Raises
        ------
        UsageError
            The file cannot be read, holds no polygon, or none inside the image.
        """
        path = Path(path)
        try:
            data = path.read_bytes()
            record = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
            polygons = list(_polygons(record))
        except (OSError, EOFError, ValueError, TypeError, KeyError, RecursionError) as error:
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UsageError(f"{path}: cannot be read as GeoJSON: {text}") from None
        if not polygons:
            raise UsageError(f"{path}: holds no polygon; draw an area and export it as GeoJSON")
        made = cls(polygons)
        if not made.touches(Region(0, 0, height, width)):
            raise UsageError(
                f"{path}: none of its {len(polygons)} areas lies inside the image of {height}×{width} "
                "pixels; are they in full-resolution pixels?"
            )
        return made

    def touches(self, region: Region) -> bool:
        """Return whether a polygon's bounding box and a rectangle overlap."""
        return any(self._near(box, region) for box in self._boxes)

    @staticmethod
    def _near(box: tuple[float, float, float, float], region: Region) -> bool:
        return box[0] < region.y1 and box[1] < region.x1 and box[2] > region.y and box[3] > region.x

    def inside(self, region: Region) -> npt.NDArray[np.bool_] | None:
        """Return which pixels have their centre in a polygon; ``None`` where all do."""
        found = np.zeros((region.height, region.width), np.bool_)
        for edges, box in zip(self._polygons, self._boxes, strict=True):
            if self._near(box, region):
                found |= _fill(edges, region)
        return None if found.all() else found


def _fill(edges: npt.NDArray[np.float64], region: Region) -> npt.NDArray[np.bool_]:
    """Rasterise one polygon by scan lines through the pixels' centres, even-odd."""
    turns = np.zeros((region.height, region.width + 1), np.int32)
    y0, y1 = edges[:, 1], edges[:, 3]
    low, high = np.minimum(y0, y1), np.maximum(y0, y1)
    crossing = (high > region.y + 0.5) & (low <= region.y1 - 0.5)
    for ax, ay, bx, by in edges[crossing]:
        # A centre line y + ½ is crossed where low ≤ y + ½ < high, so a vertex counts once.
        first = max(int(np.ceil(min(ay, by) - 0.5)), region.y)
        last = min(int(np.ceil(max(ay, by) - 0.5)), region.y1)
        if first >= last:
            continue
        y = np.arange(first, last)
        x = ax + (y + 0.5 - ay) * ((bx - ax) / (by - ay))
        column = np.clip(np.ceil(x - 0.5).astype(np.int64) - region.x, 0, region.width)
        turns[y - region.y, column] += 1
    return np.asarray(np.cumsum(turns[:, :-1], axis=1) & 1, np.bool_)


def _polygons(record: Any) -> Iterator[list[Ring]]:
    """Yield the polygons of any GeoJSON object as lists of rings."""
    if isinstance(record, list):
        for item in record:
            yield from _polygons(item)
        return
    kind = record["type"]
    if kind == "FeatureCollection":
        yield from _polygons(record["features"])
    elif kind == "Feature":
        if record.get("geometry"):
            yield from _polygons(record["geometry"])
    elif kind == "GeometryCollection":
        yield from _polygons(record["geometries"])
    elif kind in ("Polygon", "MultiPolygon"):
        parts = [record["coordinates"]] if kind == "Polygon" else record["coordinates"]
        for rings in parts:
            made = [np.array([point[:2] for point in ring], np.float64) for ring in rings]
            if any(ring.shape[0] < 3 or not np.isfinite(ring).all() for ring in made):
                raise ValueError("a polygon has fewer than three corners or one that is no number")
            yield made


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
    def part(self) -> float:
        """Part of the slide that is tissue, 0…1."""
        return float(self.mask.mean())

    def touches(self, region: Region) -> bool:
        """Return whether there is tissue in a rectangle."""
        rows, columns = self.mask.shape
        height, width = self._size
        y0, y1 = max(region.y, 0) * rows // height, -(-min(region.y1, height) * rows // height)
        x0, x1 = max(region.x, 0) * columns // width, -(-min(region.x1, width) * columns // width)
        if y0 >= y1 or x0 >= x1:
            return False
        s = self._sums
        return bool(s[y1, x1] - s[y0, x1] - s[y1, x0] + s[y0, x0] > 0)

    def inside(self, region: Region) -> None:
        """Return ``None``: cells at the edge of the tissue are not cut."""
        return


def find_tissue(reader: SlideReader) -> Tissue | None:
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
    grown = cv2.dilate(kept, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * GROW + 1,) * 2))
    return Tissue(grown > 0, reader.height, reader.width)
