"""Regions of interest, drawn by a person."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.names import readable
from ..errors import UsageError
from ..options import RegionsLike
from .focus import Focus, digest_of
from .geojson import FURTHEST, read_features
from .tiling import Region

Ring = npt.NDArray[np.float64]
#: Points times edges that are compared at once.
_COMPARED = 1 << 22
#: Letters of a name at most.
_LONGEST_NAME = 200
_Edges = npt.NDArray[np.float64]

#: Rows of pixels that all outlines of a file may pass through, together: a zigzag of a few megabytes over
#: a slide would pass through billions, for hours.
MOST_ROWS = 200_000_000
#: How often areas may lie over each other, on the average of an image, and pixels in any case.
MOST_LAYERS, MODEST_AREA = 200, 100_000_000
#: Crossings of rows that are worked on at a time, and bands of rows whose edges are kept.
_AT_A_TIME, _KEPT_BANDS = 1 << 20, 4


class Polygons(Focus):
    """Regions of interest: pixels whose centre lies inside any of some polygons.

    Parameters
    ----------
    polygons
        Each a list of rings, shape (n, 2): x and y in pixels, from the image's corner. A point is
        inside where it lies within an odd number of a polygon's rings. One without rings is left out.
    source
        The file they come from.
    names
        What each polygon is called; by its number where nothing is given.

    Attributes
    ----------
    n_empty
        How many were left out.
    """

    def __init__(
        self,
        polygons: Sequence[Sequence[Ring]],
        source: str | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.source = source
        called = [numbered(number) for number in range(1, len(polygons) + 1)] if names is None else names
        kept = [(tuple(rings), name) for rings, name in zip(polygons, called, strict=True) if len(rings)]
        self.polygons, self.names = tuple(rings for rings, _ in kept), tuple(name for _, name in kept)
        self.n_empty = len(polygons) - len(self.polygons)
        # Edges from every vertex to the next, as rows of (x0, y0, x1, y1).
        self._edges = [
            np.concatenate([np.hstack([ring, np.roll(ring, -1, axis=0)]) for ring in rings])
            for rings in self.polygons
        ]
        self._boxes = np.array(
            [(e[:, 1].min(), e[:, 0].min(), e[:, 1].max(), e[:, 0].max()) for e in self._edges]
        ).reshape(-1, 4)
        self._bands: dict[tuple[int, int], dict[int, _Edges]] = {}

    @property
    def digest(self) -> str:
        """What tells these polygons from others."""
        return digest_of(ring for rings in self.polygons for ring in rings)

    @classmethod
    def given(cls, regions: RegionsLike, height: int, width: int) -> Polygons:
        """Return polygons that are given as a file or as they are.

        Parameters
        ----------
        regions
            A path, as for :meth:`read`, or polygons: each a ring of shape (n, 2), x and y in
            full-resolution pixels, or a list of rings, of which all but the first are holes.
        height, width
            Size of the image in pixels.

        Raises
        ------
        UsageError
            They cannot be read, or none lies inside the image.
        """
        if isinstance(regions, str | os.PathLike):
            return cls.read(os.fspath(regions), height, width)
        try:
            polygons = [_rings(polygon) for polygon in regions]
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"roi: wanted a path or polygons, each an array of (n, 2) x and y in pixels: {error}"
            ) from None
        return cls._checked(polygons, None, None, height, width)

    @classmethod
    def read(cls, path: str | Path, height: int, width: int) -> Polygons:
        """Read the polygons of a GeoJSON file, as QuPath exports annotations; also ``.gz``.

        They are called as the file's features are: by their name, else by their class, else by their place
        among those that have an area.

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
        polygons, names = [], []
        for number, feature in enumerate(read_features(Path(path)), 1):
            called = _plain(feature.name) or _plain(feature.classification) or numbered(number)
            polygons += feature.polygons
            names += [called] * len(feature.polygons)
        return cls._checked(polygons, names, str(path), height, width)

    @classmethod
    def _checked(
        cls, polygons: list[list[Ring]], names: list[str] | None, source: str | None, height: int, width: int
    ) -> Polygons:
        name = source or "roi"
        made = cls(polygons, source, names)
        if not made.polygons:
            what = f"its {made.n_empty} polygons are empty" if made.n_empty else "holds no polygon"
            raise UsageError(f"{name}: {what}; draw an area and export it as GeoJSON")
        if not made.touches(Region(0, 0, height, width)):
            raise UsageError(
                f"{name}: none of its {len(made.polygons)} areas lies inside the image of {height}×{width} "
                "pixels; are they in full-resolution pixels?"
            )
        made.check_work(name, height, width)
        return made

    def check_work(self, name: str, height: int, width: int) -> None:
        """Refuse polygons that would take hours, long before they do.

        Parameters
        ----------
        name
            What they come from, for the message.
        height, width
            Size of the image in pixels.

        Raises
        ------
        UsageError
            Their outlines are too long, or they lie over each other too often.
        """
        rows = sum(
            float(np.abs(np.diff(np.clip(edges[:, 1::2], 0, height), axis=1)).sum()) for edges in self._edges
        )
        if rows > MOST_ROWS:
            raise UsageError(
                f"{name}: its outlines pass through {rows:,.0f} rows of pixels in all; at most "
                f"{MOST_ROWS:,} are followed; draw them with fewer corners"
            )
        y0, x0, y1, x1 = np.clip(self._boxes, 0, (height, width, height, width)).T
        area = float(((y1 - y0) * (x1 - x0)).sum())
        if area > max(MOST_LAYERS * height * width, MODEST_AREA):
            raise UsageError(
                f"{name}: its {len(self.polygons):,} areas lie over each other {area / height / width:,.0f} "
                f"times; at most {MOST_LAYERS} are joined; merge them"
            )

    def scaled(self, tall: float, wide: float) -> Polygons:
        """Return the polygons in pixels of another size: y times ``tall``, x times ``wide``."""
        factors = np.array([wide, tall])
        return Polygons(
            [[ring * factors for ring in rings] for rings in self.polygons], self.source, self.names
        )

    def within(self, height: int, width: int) -> Region:
        """Return the smallest rectangle of an image of some size that holds what they have of it."""
        low, high = self._boxes[:, :2].min(0), self._boxes[:, 2:].max(0)
        y0, x0 = np.clip(np.floor(low), 0, (height - 1, width - 1)).astype(int).tolist()
        y1, x1 = np.clip(np.ceil(high), (y0 + 1, x0 + 1), (height, width)).astype(int).tolist()
        return Region(y0, x0, y1 - y0, x1 - x0)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Smallest y and x, largest y and x of all corners."""
        y0, x0 = self._boxes[:, :2].min(0).tolist()
        y1, x1 = self._boxes[:, 2:].max(0).tolist()
        return y0, x0, y1, x1

    def touches(self, region: Region) -> bool:
        """Return whether any polygon and a rectangle overlap."""
        return any(_place(edges, region) is not False for edges in self._near(region))

    def _near(self, region: Region) -> list[_Edges]:
        """Return the edges in a rectangle's rows of each polygon whose bounding box overlaps it."""
        y0, x0, y1, x1 = self._boxes.T
        near = (y0 < region.y1) & (x0 < region.x1) & (y1 > region.y) & (x1 > region.x)
        band = self._band(region.y, region.y1)
        return [band[number] for number in np.flatnonzero(near).tolist()]

    def _band(self, top: int, bottom: int) -> dict[int, _Edges]:
        """Return the edges in some rows, by polygon: a slide's tiles are asked for row by row."""
        made = self._bands.get((top, bottom))
        if made is None:
            y0, _, y1, _ = self._boxes.T
            made = {}
            for number in np.flatnonzero((y0 < bottom) & (y1 > top)).tolist():
                edges = self._edges[number]
                here = (edges[:, 1::2].min(axis=1) <= bottom) & (edges[:, 1::2].max(axis=1) >= top)
                made[number] = edges if here.all() else edges[here]
            kept = list(self._bands.items())[1 - _KEPT_BANDS :]
            self._bands = {**dict(kept), (top, bottom): made}  # whole at any time: threads share it
        return made

    def inside(self, region: Region) -> npt.NDArray[np.bool_] | None:
        """Return which pixels have their centre in a polygon; ``None`` where all do."""
        cut = []
        for edges in self._near(region):
            place = _place(edges, region)
            if place is True:
                return None
            if place is None:
                cut.append(edges)
        found = np.zeros((region.height, region.width), np.bool_)
        for number, edges in enumerate(cut):
            _fill(edges, region, found)
            if number % 16 == 15 and found.all():
                return None
        return None if found.all() else found

    def holding(self, y: npt.NDArray[Any], x: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return whether any polygon holds each of some points, x and y from the image's corner; shape (n,).

        A pixel's centre is held where :meth:`inside` says so of the pixel.
        """
        found = np.zeros(len(y), np.bool_)
        if not len(y):
            return found
        y0, x0, y1, x1 = self._boxes.T
        for number in np.flatnonzero((y0 <= y.max()) & (y1 >= y.min()) & (x0 <= x.max()) & (x1 >= x.min())):
            near = np.flatnonzero(
                ~found & (y >= y0[number]) & (y < y1[number]) & (x >= x0[number]) & (x < x1[number])
            )
            if len(near):
                found[near] = _hold(self._edges[number], y[near], x[near])
        return found


def numbered(number: int) -> str:
    """Return what a region without a name is called."""
    return f"region {number}"


def _plain(name: str) -> str:
    """Return a name as one line that every file takes."""
    return " ".join(readable(name).split())[:_LONGEST_NAME]


def _hold(edges: npt.NDArray[np.float64], y: npt.NDArray[Any], x: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return whether one polygon holds each of some points, even-odd, as :func:`_fill` has it."""
    low, high = np.minimum(edges[:, 1], edges[:, 3]), np.maximum(edges[:, 1], edges[:, 3])
    edges = edges[(low <= y.max()) & (high > y.min())]
    held = np.zeros(len(y), np.bool_)
    step = max(1, _COMPARED // max(1, len(edges)))
    for start in range(0, len(y), step):
        part = slice(start, start + step)
        py, px = y[part, None], x[part, None]
        ax, ay, bx, by = edges.T
        crossed = (np.minimum(ay, by) <= py) & (py < np.maximum(ay, by))
        with np.errstate(divide="ignore", invalid="ignore"):  # level edges are crossed by nothing
            at = ax + (py - ay) * ((bx - ax) / (by - ay))
        held[part] = np.count_nonzero(crossed & (at <= px), axis=1) & 1
    return held


def _rings(polygon: Any) -> list[Ring]:
    """Return the rings of a polygon that is given as one ring or several."""
    try:
        one = np.asarray(polygon, np.float64)
    except ValueError:  # rings of different lengths
        one = np.empty(1)
    if not one.size:
        return []
    rings = [one] if one.ndim == 2 else [np.asarray(ring, np.float64) for ring in polygon]
    for ring in rings:
        # Not a number is not at most anything.
        if ring.ndim != 2 or len(ring) < 3 or ring.shape[1] != 2 or not (np.abs(ring) <= FURTHEST).all():
            raise ValueError(
                f"found an array of shape {ring.shape}, wanted (3 or more, 2) numbers of at most {FURTHEST:g}"
            )
    return rings


def _place(edges: npt.NDArray[np.float64], region: Region) -> bool | None:
    """Return whether a rectangle lies wholly inside a polygon or outside; ``None`` where an edge cuts it."""
    x0, y0, x1, y1 = edges.T
    near = (
        (np.minimum(x0, x1) <= region.x1)
        & (np.maximum(x0, x1) >= region.x)
        & (np.minimum(y0, y1) <= region.y1)
        & (np.maximum(y0, y1) >= region.y)
    )
    ax, ay, bx, by = edges[near].T
    if ax.size:
        # On which side of the edge's line each corner lies: an edge that cuts has some on both.
        corners = [(y, x) for y in (region.y, region.y1) for x in (region.x, region.x1)]
        sides = np.stack([(bx - ax) * (y - ay) - (by - ay) * (x - ax) for y, x in corners])
        if ((sides.min(axis=0) <= 0) & (sides.max(axis=0) >= 0)).any():
            return None
    y, x = region.y + 0.5, region.x + 0.5
    crossed = (np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1))
    ax, ay, bx, by = edges[crossed].T
    return bool(np.count_nonzero(ax + (y - ay) * ((bx - ax) / (by - ay)) <= x) & 1)


def _fill(edges: _Edges, region: Region, found: npt.NDArray[np.bool_]) -> None:
    """Add one polygon to a mask, by scan lines through the pixels' centres, even-odd."""
    # A centre line y + ½ is crossed where low ≤ y + ½ < high, so a vertex counts once.
    ends = np.ceil(np.sort(edges[:, 1::2], axis=1) - 0.5)
    ends = np.clip(ends, region.y, region.y1).astype(np.int64)
    crossing = ends[:, 0] < ends[:, 1]
    edges, (first, last) = edges[crossing], ends[crossing].T
    if not first.size:
        return
    # Only the part of the rectangle that the polygon reaches, and what rounding may add.
    top, bottom = int(first.min()), int(last.max())
    reach = np.floor(edges[:, ::2].min()) - 2, np.ceil(edges[:, ::2].max()) + 2
    x0, x1 = np.clip(reach, region.x, region.x1).astype(int).tolist()
    width = x1 - x0
    turns = np.zeros((bottom - top) * (width + 1), np.int32)
    counts = last - first
    before = np.cumsum(counts) - counts
    start = 0
    while start < counts.size:
        part = slice(start, max(start + 1, int(np.searchsorted(before, before[start] + _AT_A_TIME))))
        start = part.stop
        ax, ay, slope, first_row, past = (
            np.repeat(values[part], counts[part])
            for values in (edges[:, 0], edges[:, 1], _slopes(edges), first, before)
        )
        y = np.arange(past[0], past[0] + past.size) - past + first_row
        column = np.clip(np.ceil(ax + (y + 0.5 - ay) * slope - 0.5).astype(np.int64) - x0, 0, width)
        np.add.at(turns, (y - top) * (width + 1) + column, 1)
    odd = np.cumsum(turns.reshape(bottom - top, width + 1)[:, :-1], axis=1) & 1
    found[top - region.y : bottom - region.y, x0 - region.x : x1 - region.x] |= odd.astype(np.bool_)


def _slopes(edges: _Edges) -> _Edges:
    """Return how far each edge goes to the right for each row down."""
    ax, ay, bx, by = edges.T
    return np.asarray((bx - ax) / (by - ay), np.float64)
