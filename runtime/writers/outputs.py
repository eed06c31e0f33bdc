"""The table of outputs: every file of a folder of results is one row.

A new output is one row of :data:`OUTPUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..geometry.regions import Polygons
from ..options import LabelFormat, SegmentOptions
from .base import Discarding
from .columns import Columns
from .contents import RECORD
from .density import DensityMap
from .formats import LabelsPng, LabelsTiff, check_png
from .geojson import GeoJson
from .labels import LabelField, LabelsZarr
from .overview import Overview
from .planes import PlanesZarr
from .table import CellTable


@dataclass(frozen=True, slots=True)
class Subject:
    """What writers know of an image."""

    #: Name of its file.
    name: str
    #: Its size in pixels.
    height: int
    width: int
    #: What is known of its cells.
    columns: Columns
    #: Text that decides the cells' identifiers together with the labels.
    space: str
    #: The reduced picture, or what returns it when all rows have been read.
    picture: NDArray[Any] | Callable[[], NDArray[Any]]
    #: Regions of interest in pixels.
    regions: Polygons | None
    #: Names of the network's planes, and their size.
    heads: tuple[str, ...]
    seen: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def labels(self) -> dict[str, Any]:
        """What every label image is told."""
        return {"pixel_size": self.pixel_size, "name": self.name}

    @property
    def pixel_size(self) -> float | None:
        """Micrometres a pixel, where known."""
        return self.columns.pixel_size


def any_size(path: Path, height: int, width: int) -> None:
    """Refuse no image."""


@dataclass(frozen=True, slots=True)
class Output:
    """A row of the table."""

    file: str
    #: What it is for, as the report says it.
    title: str
    #: Begin the file: a :class:`~cellseg.runtime.writers.Writer`, or what takes planes.
    make: Callable[[Path, Subject], Discarding]
    #: Whether the user wants it.
    wanted: Callable[[SegmentOptions], bool] = lambda options: True
    #: Refuse an image of this height and width that the format cannot hold, before anything is computed.
    check: Callable[[Path, int, int], None] = any_size


@dataclass(frozen=True, slots=True)
class LabelRow:
    """A format of label images."""

    #: As the user calls it.
    name: LabelFormat
    ending: str
    make: Callable[..., Discarding]
    title: str
    check: Callable[[Path, int, int], None] = any_size


LABELS = (
    LabelRow("zarr", "ome.zarr", LabelsZarr, "(OME-Zarr 0.5): napari, Fiji, OMERO"),
    LabelRow("tiff", "ome.tif", LabelsTiff, "(OME-TIFF): QuPath, Fiji"),
    LabelRow("png", "png", LabelsPng, "(16-bit PNG)", check_png),
)


def _labels(stem: str, title: str, field: LabelField, row: LabelRow) -> Output:
    """Return the row of a label image in one format: of nuclei, or of whole cells where there are any."""

    def make(path: Path, of: Subject) -> Discarding:
        return row.make(path, *of.size, **of.labels, field=field)

    def wanted(options: SegmentOptions) -> bool:
        return options.labels == row.name and (field == "labels" or options.expand is not None)

    return Output(f"{stem}.{row.ending}", f"{title} {row.title}", make, wanted, row.check)


OUTPUTS: tuple[Output, ...] = (
    *(_labels("labels", "label image", "labels", row) for row in LABELS),
    *(_labels("cells", "label image of whole cells", "whole", row) for row in LABELS),
    Output("cells.parquet", "table of cells: Python, R", lambda path, of: CellTable(path, of.columns)),
    Output(
        "cells.csv",
        "table of cells: spreadsheets",
        lambda path, of: CellTable(path, of.columns),
        lambda options: options.csv,
    ),
    Output(
        "cells.geojson.gz",
        "outlines and measurements: drag into QuPath",
        lambda path, of: GeoJson(path, of.columns, space=of.space),
    ),
    Output(
        "overview.png",
        "the picture with the cells' outlines",
        lambda path, of: Overview(path, of.picture, *of.size, regions=of.regions, classes=of.columns.classes),
    ),
    Output(
        "density.png",
        "map of cell density",
        lambda path, of: DensityMap(path, *of.size, pixel_size=of.pixel_size),
    ),
    Output(
        "planes.ome.zarr",
        "the network's planes (OME-Zarr 0.5), 0…255",
        lambda path, of: PlanesZarr(path, of.heads, *of.seen, pixel_size=of.pixel_size, full_size=of.size),
        lambda options: options.probabilities,
    ),
)


def check_outputs(options: SegmentOptions, folder: Path, height: int, width: int) -> None:
    """Refuse an image of this size where a format that is wanted cannot hold it.

    Raises
    ------
    OutputError
        One cannot.
    """
    for row in OUTPUTS:
        if row.wanted(options):
            row.check(folder / row.file, height, width)


def titles() -> Mapping[str, str]:
    """Return what each file of a folder of results is for."""
    return {row.file: row.title for row in OUTPUTS} | {RECORD: "everything about this run, for programs"}
