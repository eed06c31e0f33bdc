"""What leaves the instance stage: strips of labels, and tables of cells with their outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

#: Columns of every table with their types; what was measured of the image (:func:`image_columns`) follows.
COLUMNS: dict[str, type[np.generic]] = {
    "label": np.int32,
    "centroid_y": np.float64,
    "centroid_x": np.float64,
    "y0": np.int32,
    "x0": np.int32,
    "y1": np.int32,
    "x1": np.int32,
    "area": np.int64,
    "perimeter": np.float64,
    "eccentricity": np.float64,
    "solidity": np.float64,
    "mean_probability": np.float64,
    "score": np.float64,
    "touches_border": np.bool_,
}


def image_columns(image_channels: int, stains: int = 0) -> list[str]:
    """Return the columns of what is measured of an image with these numbers of channels and stains."""
    means = [f"mean_intensity_{channel}" for channel in range(image_channels)]
    return means + [f"{what}_od_{stain}" for what in ("mean", "max") for stain in range(stains)]


def column_types(
    image_channels: int, stains: int = 0, *, expanded: bool = False
) -> dict[str, type[np.generic]]:
    """Return name and type of every column for an image with these numbers of channels and stains."""
    measures = image_columns(image_channels, stains)
    columns = COLUMNS | dict.fromkeys(measures, np.float64)
    if expanded:
        columns |= {"cell_area": np.int64, "cell_perimeter": np.float64, "ring_area": np.int64}
        columns |= {f"{part}_{name}": np.float64 for part in ("ring", "cell") for name in measures}
    return columns


@dataclass(frozen=True, slots=True)
class Rings:
    """Closed rings, end to end.

    Attributes
    ----------
    points
        Shape (P, 2): x and y of the corners, as in :attr:`Cells.outline`.
    start
        Shape (n + 1,): where each ring starts.
    """

    points: NDArray[np.int32]
    start: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        """Return the points of one ring."""
        return self.points[self.start[index] : self.start[index + 1]]

    def part(self, start: int, end: int) -> Rings:
        """Return the rings from ``start`` to ``end``."""
        first, last = self.start[start], self.start[end]
        return Rings(self.points[first:last], self.start[start : end + 1] - first)

    def emptied(self) -> Rings:
        """Return as many rings of no points."""
        return Rings(self.points[:0], np.zeros_like(self.start))

    @classmethod
    def empty(cls) -> Rings:
        """Return no rings."""
        return cls(np.empty((0, 2), np.int32), np.zeros(1, np.int64))

    @classmethod
    def concatenate(cls, given: Sequence[Rings]) -> Rings:
        """Join rings, at least one of them."""
        offsets = np.cumsum([0, *(len(rings.points) for rings in given)])
        starts = [rings.start[:-1] + offset for rings, offset in zip(given, offsets, strict=False)]
        return cls(
            np.concatenate([rings.points for rings in given]),
            np.concatenate([*starts, offsets[-1:]]).astype(np.int64),
        )


@dataclass(frozen=True, slots=True)
class Cells:
    """A table of cells, in the order of their numbers.

    Attributes
    ----------
    columns
        One array of length n for each name:

        * ``label``: the cell's number in the label image;
        * ``centroid_y``, ``centroid_x``: pixels; the centre of a pixel is its integer index;
        * ``y0``, ``x0``, ``y1``, ``x1``: bounding box, half-open;
        * ``area``: pixels;
        * ``perimeter``: pixels, by the neighbourhoods of border pixels, as scikit-image's
          ``perimeter`` with 4 neighbours (holes included);
        * ``eccentricity``: of the ellipse with the same second moments, 0…1, as scikit-image;
        * ``solidity``: area over the area of the convex hull of the pixels' corners, 0…1 (for small
          cells a little below scikit-image's, whose hull is counted in pixels);
        * ``mean_probability``: of the mask plane, 0…1;
        * ``score``: how sure the cell is, 0…1: the probability that it is right, by the model's
          :class:`~cellseg.runtime.model.spec.ScoreRule`, or else the mean probability;
        * ``touches_border``: whether a pixel lies on the edge of the image;
        * ``mean_intensity_0``…: by image channel, in raw units;
        * ``mean_od_0``…, ``max_od_0``…: mean and largest optical density by stain, where stains were asked
          for: see :mod:`cellseg.runtime.intensity.stains`;
        * ``cell_area``, ``cell_perimeter``, ``ring_area``, ``cell_…`` and ``ring_…`` of what is measured of
          the image, where nuclei were grown into cells: of the cell with its nucleus, and without;
        * ``class``, where cells are told positive: the number of their class, from 0, or -1 for none;
        * ``roi``, where regions of interest were given: the number of the smallest one that holds the
          centroid, from 0, or -1.
    outline
        Shape (P, 2): x and y of the corners of the exterior rings along the pixels' edges, clockwise
        on the screen, closed implicitly, without collinear points. A cell of one pixel at (0, 0) is
        (0, 0), (1, 0), (1, 1), (0, 1).
    outline_start
        Shape (n + 1,): the ring of cell ``i`` is ``outline[outline_start[i]:outline_start[i + 1]]``.
    whole
        Outlines of whole cells, where these are nuclei that were grown into cells.
    """

    columns: dict[str, NDArray[np.generic]]
    outline: NDArray[np.int32]
    outline_start: NDArray[np.int64]
    whole: Rings | None = None

    def __len__(self) -> int:
        return len(self.outline_start) - 1

    def ring(self, index: int) -> NDArray[np.int32]:
        """Return the outline of one cell, shape (p, 2): x and y."""
        return self.outline[self.outline_start[index] : self.outline_start[index + 1]]

    @property
    def rings(self) -> Rings:
        """The outlines as one value."""
        return Rings(self.outline, self.outline_start)

    def without_outlines(self) -> Cells:
        """Return the same columns with rings of no points."""
        whole = None if self.whole is None else self.whole.emptied()
        return Cells(self.columns, self.outline[:0], np.zeros_like(self.outline_start), whole)

    def with_column(self, name: str, values: NDArray[np.generic]) -> Cells:
        """Return the same with one more column."""
        return replace(self, columns={**self.columns, name: values})

    @classmethod
    def empty(cls, image_channels: int = 0, stains: int = 0, *, expanded: bool = False) -> Cells:
        """Return a table without cells, with the columns for these numbers of channels and stains."""
        return cls(
            {
                name: np.empty(0, dtype)
                for name, dtype in column_types(image_channels, stains, expanded=expanded).items()
            },
            np.empty((0, 2), np.int32),
            np.zeros(1, np.int64),
            Rings.empty() if expanded else None,
        )

    @classmethod
    def concatenate(cls, tables: Sequence[Cells]) -> Cells:
        """Join tables with equal columns, at least one."""
        outlines = Rings.concatenate([table.rings for table in tables])
        whole = [table.whole for table in tables if table.whole is not None]
        return cls(
            {name: np.concatenate([table.columns[name] for table in tables]) for name in tables[0].columns},
            outlines.points,
            outlines.start,
            Rings.concatenate(whole) if whole else None,
        )


@dataclass(frozen=True, slots=True)
class Strip:
    """Finished rows of the image.

    Attributes
    ----------
    y
        First row.
    labels
        Shape (rows, W): cell numbers, 0 for background.
    cells
        The cells whose first row lies in this strip.
    whole
        Shape (rows, W): the same numbers for whole cells, where nuclei were grown into cells.
    """

    y: int
    labels: NDArray[np.int32]
    cells: Cells
    whole: NDArray[np.int32] | None = None
